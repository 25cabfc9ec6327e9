// SPDX-License-Identifier: Apache-2.0
#include "http/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <tuple>
#include <utility>

#include "io/descriptor.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int kMostAtOnce = 64;  // others have their turn too
// Where there are no descriptors left, some time for connections to end.
constexpr std::chrono::milliseconds kPause{100};
// Of what is written and not yet read: a client that reads slowly holds no more of the kernel's
// memory, which would let it grow to megabytes each.
constexpr int kSendBuffer = 64 << 10;
// A client whose machine is gone says nothing: asked after so long without a byte, so often.
constexpr int kIdleSeconds = 30, kAskSeconds = 10, kAsks = 3;

tcp::endpoint endpoint_of(const std::string& host, std::uint16_t port) {
  const bool is_bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string text = host == "localhost" ? "127.0.0.1"
                           : is_bracketed      ? host.substr(1, host.size() - 2)
                                               : host;
  error_code error;
  const auto address = asio::ip::make_address(text, error);
  if (error) {
    throw Error("cannot listen on " + io::quote(host) + ": expected an IP address or localhost");
  }
  return {address, port};
}

void wish(int socket, int level, int option, int value) {
  ::setsockopt(socket, level, option, &value, sizeof(value));  // a wish
}

// Of asio's own, which is not closed in a program that is started by another thread meanwhile.
io::Descriptor listening_socket(const tcp::endpoint& endpoint) {
  io::Descriptor socket(::socket(endpoint.protocol().family(),
                                 SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!socket) return socket;
  wish(socket.number(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (endpoint.address().is_v6()) wish(socket.number(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (::bind(socket.number(), endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 ||
      ::listen(socket.number(), SOMAXCONN) != 0) {
    const int error = errno;
    socket = io::Descriptor(-1);
    errno = error;
  }
  return socket;
}

bool is_short_of_something(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

Listener::Address plain(const asio::ip::address& address) {
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

}  // namespace

Listener::Listener(asio::io_context& io, const std::string& host, std::uint16_t port,
                   std::function<void(Socket, Address)> take)
    : io_(io), acceptor_(io), pause_(io), take_(std::move(take)) {
  const tcp::endpoint endpoint = endpoint_of(host, port);
  io::Descriptor socket = listening_socket(endpoint);
  if (!socket) {
    const error_code why(errno, boost::system::system_category());
    const std::string name = endpoint.address().is_v6() ? "[" + endpoint.address().to_string() + "]"
                                                        : endpoint.address().to_string();
    throw Error("cannot listen on " + name + ":" + std::to_string(port) + ": " + why.message());
  }
  acceptor_.assign(endpoint.protocol(), socket.release());
  port_ = acceptor_.local_endpoint().port();
  wait();
}

Listener::~Listener() = default;

void Listener::close() {
  error_code ignored;
  std::ignore = acceptor_.close(ignored);
  pause_.cancel();
}

void Listener::wait() {
  if (!acceptor_.is_open()) return;
  acceptor_.async_wait(tcp::acceptor::wait_read, [this](const error_code& error) {
    if (!error && acceptor_.is_open()) on_ready();
  });
}

void Listener::wait_for_descriptors() {
  pause_.expires_after(kPause);
  pause_.async_wait([this](const error_code& error) {
    if (!error) wait();
  });
}

void Listener::on_ready() {
  for (int i = 0; i < kMostAtOnce && acceptor_.is_open(); ++i) {
    tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    io::Descriptor accepted(
        ::accept4(acceptor_.native_handle(), peer.data(), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!accepted) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      if (is_short_of_something(errno)) return wait_for_descriptors();
      continue;  // that client has left again
    }
    peer.resize(size);
    const int number = accepted.number();
    wish(number, IPPROTO_TCP, TCP_NODELAY, 1);
    wish(number, SOL_SOCKET, SO_SNDBUF, kSendBuffer);
    wish(number, SOL_SOCKET, SO_KEEPALIVE, 1);
    wish(number, IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
    wish(number, IPPROTO_TCP, TCP_KEEPINTVL, kAskSeconds);
    wish(number, IPPROTO_TCP, TCP_KEEPCNT, kAsks);
    Socket socket(io_);
    error_code error;
    if (socket.assign(peer.protocol(), number, error)) continue;
    accepted.release();
    take_(std::move(socket), plain(peer.address()));
  }
  wait();
}

}  // namespace memlayers::http

// SPDX-License-Identifier: Apache-2.0
#include "http/server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <new>
#include <unordered_map>
#include <utility>

#include "http/body_file.h"
#include "http/connection.h"
#include "http/listener.h"
#include "http/shared.h"

namespace memlayers::http {
namespace {

// Connections that are only told why they are not served; more are closed without a word.
constexpr std::size_t kMostRefused = 128;

// What a client can have many of is no way around a limit: IPv6 networks are given to one.
std::string origin_of(const asio::ip::address& address) {
  if (!address.is_v6()) return address.to_string();
  const auto bytes = address.to_v6().to_bytes();
  return {bytes.begin(), bytes.begin() + 8};
}

class AsioServer final : public Server {
 public:
  AsioServer(const std::string& host, std::uint16_t port, const Limits& limits, Handler handler)
      : shared_(limits, std::move(handler)),
        listener_(shared_.io, host, port,
                  [this](asio::ip::tcp::socket socket, const asio::ip::address& peer) {
                    take(std::move(socket), peer);
                  }),
        drain_timer_(shared_.io) {
    remove_left_bodies(io::posix(), limits.body_folder);
    shared_.on_change = [this](Connection& connection) { on_change(connection); };
  }
  ~AsioServer() override { close(); }
  AsioServer(const AsioServer&) = delete;
  AsioServer& operator=(const AsioServer&) = delete;

  std::uint16_t port() const override { return listener_.port(); }
  std::size_t connections() const override { return count_.load(); }

  void run() override {
    while (true) {
      try {
        shared_.io.run();
        return;
      } catch (const std::bad_alloc&) {  // of asio's own; what it was for has its deadline
      }
    }
  }

  void drain(double seconds) override {
    asio::post(shared_.io, [this, seconds] {
      if (is_closed_) return;
      shared_.is_draining = true;
      for (const auto& connection : all()) connection->drain();
      drain_timer_.expires_at(after(Clock::now(), seconds));
      drain_timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error) close();
      });
      close_when_done();
    });
  }

  void stop() override {
    asio::post(shared_.io, [this] { close(); });
  }

 private:
  struct Client {
    std::shared_ptr<Connection> connection;
    std::string origin;  // "": not counted, it is only refused
  };

  void take(asio::ip::tcp::socket socket, const asio::ip::address& peer) {
    try {
      const std::string origin = origin_of(peer);
      const auto of_origin = origins_.find(origin);
      const std::size_t same = of_origin == origins_.end() ? 0 : of_origin->second;
      const Limits& limits = shared_.limits;
      const bool is_full = count_ >= limits.connections;
      const bool is_greedy = same >= limits.connections_per_address;
      const bool is_refused = shared_.is_draining || is_full || is_greedy;
      if (is_refused && refused_ >= kMostRefused) return;
      auto connection = std::make_shared<Connection>(shared_, std::move(socket), peer.to_string());
      clients_.emplace(connection.get(), Client{connection, is_refused ? "" : origin});
      if (is_refused) {
        ++refused_;
        if (shared_.is_draining) return connection->refuse(503, "the server is stopping");
        if (is_full) return connection->refuse(503, "the server has all the connections it takes");
        return connection->refuse(429, "too many connections from one address");
      }
      ++origins_[origin];
      ++count_;
      connection->serve();
    } catch (const std::bad_alloc&) {  // then not
    }
  }

  void on_change(Connection& connection) {
    if (connection.phase() == Connection::Phase::kClosed) {
      const auto found = clients_.find(&connection);
      if (found == clients_.end()) return;
      const std::string origin = found->second.origin;
      clients_.erase(found);
      if (origin.empty()) {
        --refused_;
      } else {
        --count_;
        if (const auto same = origins_.find(origin); --same->second == 0) origins_.erase(same);
      }
    }
    if (shared_.is_draining) close_when_done();
  }

  // Nothing is being answered any more.
  void close_when_done() {
    const bool is_done = std::ranges::all_of(clients_, [](const auto& client) {
      return client.second.connection->phase() == Connection::Phase::kHeader;
    });
    if (is_done) asio::post(shared_.io, [this] { close(); });
  }

  void close() {
    if (std::exchange(is_closed_, true)) return;
    listener_.close();
    drain_timer_.cancel();
    for (const auto& connection : all()) connection->cut();
  }

  std::vector<std::shared_ptr<Connection>> all() const {
    std::vector<std::shared_ptr<Connection>> all;
    for (const auto& [key, client] : clients_) all.push_back(client.connection);
    return all;
  }

  Shared shared_;
  std::unordered_map<Connection*, Client> clients_;
  std::map<std::string, std::size_t> origins_;
  std::size_t refused_ = 0;
  std::atomic<std::size_t> count_ = 0;
  bool is_closed_ = false;
  Listener listener_;
  asio::steady_timer drain_timer_;
};

}  // namespace

const std::string* Request::header(std::string_view name) const {
  const auto found = std::ranges::find_if(headers, [&](const auto& h) { return h.first == name; });
  return found == headers.end() ? nullptr : &found->second;
}

std::unique_ptr<Server> Server::listen(const std::string& host, std::uint16_t port,
                                       const Limits& limits, Handler handler) {
  return std::make_unique<AsioServer>(host, port, limits, std::move(handler));
}

}  // namespace memlayers::http

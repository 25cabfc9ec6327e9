// SPDX-License-Identifier: Apache-2.0
// A socket that takes connections.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <string>

namespace memlayers::http {

// Of the server's thread alone.
class Listener {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using Address = boost::asio::ip::address;

  // Throws Error naming host and port. `take` must not throw.
  Listener(boost::asio::io_context& io, const std::string& host, std::uint16_t port,
           std::function<void(Socket, Address)> take);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::uint16_t port() const { return port_; }
  void close();

 private:
  void wait();
  void wait_for_descriptors();
  void on_ready();

  boost::asio::io_context& io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  std::function<void(Socket, Address)> take_;
  std::uint16_t port_ = 0;
};

}  // namespace memlayers::http

#include "box/qmp.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <nlohmann/json.hpp>
#include <string>

namespace sluicebox::box {

namespace {

using nlohmann::json;

// The other end says what a QEMU says, and what none should.
struct Talk {
  std::shared_ptr<Reactor> reactor = Reactor::start().value();
  UniqueFd far;
  std::unique_ptr<Qmp> qmp;
  std::vector<std::string> events;

  Talk() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    far = UniqueFd(ends[1]);
    run([this, near = ends[0]] {
      qmp = std::make_unique<Qmp>(*reactor, UniqueFd(near),
                                  [this](const std::string& name, const json&) { events.push_back(name); });
      REQUIRE(qmp->start().ok());
    });
  }
  ~Talk() {
    run([this] { qmp.reset(); });
    reactor->stop();
  }

  void run(const std::function<void()>& task) {
    std::promise<void> done;
    REQUIRE(reactor->post([&] {
      task();
      done.set_value();
    }));
    done.get_future().wait();
  }
  std::future<Result<json>> ask(const std::string& command, std::vector<UniqueFd> passed = {}) {
    const auto promise = std::make_shared<std::promise<Result<json>>>();
    run([&] {
      qmp->execute(
          command, json::object(), [promise](Result<json> answer) { promise->set_value(std::move(answer)); },
          std::move(passed));
    });
    return promise->get_future();
  }
  void say(const std::string& text) const {
    REQUIRE(::send(far.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
  }
};

}  // namespace

TEST_SUITE("QMP") {
  TEST_CASE("answers find their question in any order, in pieces, between events") {
    Talk talk;
    auto first = talk.ask("query-status");
    auto second = talk.ask("query-block");
    talk.say("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n{\"return\": {}, \"id\": 1}\r\n");
    talk.say("{\"return\": 3, \"id\": 3}\n{\"event\": \"STOP\", \"timestamp\": {}}\n{\"ret");
    CHECK(second.get().value() == 3);
    talk.say("urn\": 2, \"id\": 2}\n");
    CHECK(first.get().value() == 2);
    talk.run([&] { CHECK(talk.events == std::vector<std::string>{"STOP"}); });
  }

  TEST_CASE("S35 a refusal is a typed error with QEMU's words") {
    Talk talk;
    auto answer = talk.ask("nonsense");
    talk.say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": 2}\n");
    const auto refused = answer.get();
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kIo);
    CHECK(refused.error().message.find("no such thing") != std::string::npos);
  }

  TEST_CASE("S35 what is no QMP ends the conversation, and everyone who waits hears it") {
    for (const std::string garbage : {"not json\n", "[]\n", "{\"return\": 1}\n", "{\"return\": 1, \"id\": 99}\n",
                                      "{\"event\": 7}\n", "{\"return\": 1, \"id\": \"2\"}\n"}) {
      CAPTURE(garbage);
      Talk talk;
      auto answer = talk.ask("query-status");
      talk.say(garbage);
      const auto ended = answer.get();
      REQUIRE_FALSE(ended.ok());
      CHECK(ended.error().code == ErrorCode::kBoxLost);
      CHECK(talk.ask("query-status").get().error().code == ErrorCode::kBoxLost);
    }
  }

  TEST_CASE("S35 an endless line is not kept, and an end is told") {
    Talk talk;
    auto answer = talk.ask("query-status");
    const std::string endless(1 << 20, 'x');
    bool ended = false;
    for (int i = 0; i < 8 && !ended; ++i)
      ended =
          ::send(talk.far.get(), endless.data(), endless.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(endless.size());
    CHECK(answer.get().error().code == ErrorCode::kBoxLost);
    Talk other;
    auto hung_up = other.ask("query-status");
    other.far.reset();
    CHECK(hung_up.get().error().code == ErrorCode::kBoxLost);
  }
}

}  // namespace sluicebox::box

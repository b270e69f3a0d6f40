// A box is launched, and what it sees is what it should.
#include <doctest/doctest.h>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;

TEST_CASE("B2 a box launches on the host's programs, runs one, and ends when it is asked") {
  const Home home;
  BoxUnderTest box(home.make_box());
  const Answer& answer = box.launch();
  INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
  REQUIRE(answer.launched);
  CHECK(box.sh("echo in a box; id -u") == "in a box\n0\n");
  const auto ended = box.stop(60000);
  CHECK(ended.asked);
  CHECK_FALSE(ended.forced);
  CHECK(box.await_keeper() == 0);
}

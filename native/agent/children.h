// children.h: the agent's child processes: which execution each belongs to, and who has ended.
// Knows: wait4. Does not know: what an execution is made of.
// Threads: one.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <unordered_map>

namespace sluicebox::agent {

// Who is told of a child's end, once.
class Parent {
 public:
  Parent() = default;
  Parent(const Parent&) = delete;
  Parent& operator=(const Parent&) = delete;
  virtual ~Parent() = default;
  virtual void ended(int status, const rusage& usage) = 0;
};

class Children {
 public:
  void add(pid_t pid, Parent& parent) { parents_.insert_or_assign(pid, &parent); }
  // It is nobody's from now on: reaped like an orphan.
  void abandon(pid_t pid) { parents_.erase(pid); }

  // All that have ended: children of ours, and orphans that became ours.
  void reap();

  // Of executions, not yet reaped.
  bool any_owned() const { return !parents_.empty(); }
  // Of any kind.
  static bool any_left();

 private:
  std::unordered_map<pid_t, Parent*> parents_;
};

}  // namespace sluicebox::agent

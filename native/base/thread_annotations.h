// thread_annotations.h: names for clang's thread safety attributes; they vanish under other compilers.
// Knows: nothing. Checked by the clang build (-Wthread-safety -Werror).
#pragma once

#if defined(__clang__)
#define SLUICEBOX_ATTRIBUTE(x) __attribute__((x))
#else
#define SLUICEBOX_ATTRIBUTE(x)
#endif

#define CAPABILITY(x) SLUICEBOX_ATTRIBUTE(capability(x))
#define SCOPED_CAPABILITY SLUICEBOX_ATTRIBUTE(scoped_lockable)
#define GUARDED_BY(x) SLUICEBOX_ATTRIBUTE(guarded_by(x))
#define PT_GUARDED_BY(x) SLUICEBOX_ATTRIBUTE(pt_guarded_by(x))
#define REQUIRES(...) SLUICEBOX_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) SLUICEBOX_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) SLUICEBOX_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define RELEASE(...) SLUICEBOX_ATTRIBUTE(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS SLUICEBOX_ATTRIBUTE(no_thread_safety_analysis)

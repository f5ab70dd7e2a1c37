//! The helper module's own sources, to be written where it is built.

/// Name and text of each file, in the order in which one would read them.
pub const FILES: &[(&str, &str)] = &[
    ("sevsim_flush.h", include_str!("../module/sevsim_flush.h")),
    ("main.c", include_str!("../module/main.c")),
    ("cpu.c", include_str!("../module/cpu.c")),
    ("flush.c", include_str!("../module/flush.c")),
    ("session.c", include_str!("../module/session.c")),
    ("internal.h", include_str!("../module/internal.h")),
    ("calls.h", include_str!("../module/calls.h")),
    ("policy.h", include_str!("../module/policy.h")),
    ("Makefile", include_str!("../module/Makefile")),
    ("build.sh", include_str!("../module/build.sh")),
];

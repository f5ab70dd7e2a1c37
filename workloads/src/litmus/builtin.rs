//! The built-in litmus tests.

macro_rules! litmus {
    ($($name:literal),* $(,)?) => {
        &[$(($name, concat!("litmus/", $name, ".litmus"), include_str!(concat!("../../litmus/", $name, ".litmus")))),*]
    };
}

/// The built-in litmus tests: name, file, text.
pub const BUILTIN: &[(&str, &str, &str)] = litmus!(
    "reclaim-one-vcpu",
    "reclaim-while-running",
    "two-flushers",
    "two-vcpus-first-entry",
    "dma-on-coherent-part",
    "no-dma-on-coherent-part",
    "snp-free-without-clflush",
    "snp-free-clflush",
    "dma-to-assigned-page",
    "asid-recycle-wbnoinvd",
    "asid-recycle-partial-ccx",
    "mirror-pair",
    "mirror-left-out",
    "cpu-offline",
    "cpu-offline-flushed-first",
    "shared-page",
    "store-buffering",
    "store-buffering-fenced",
    "host-mapped-clflush",
    "unpinned-reclaim",
    "deactivate-before-df-flush",
    "vmsa-free-coherent",
    "page-flush-fault",
    "vmsa-flush-dropped",
    "init-error-swallowed",
    "migration-without-mask",
    "mirror-leaks-mask",
    "migration-leaves-lines",
    "unregister-and-reuse",
    "vmsa-flush-dropped-es",
    "gmem-freed-without-clflush",
    "asid-recycle",
    "region-clflush-unlocked",
    "unregister-while-running",
    "launch-over-host-lines",
    "destroy-without-flush",
    "destroy-pinned-without-flush",
    "event-filter-off-by-one",
    "asid-recycle-wbinvd",
    "psp-over-host-lines",
    "psp-after-clflush",
    "invd-loses-data",
    "snp-validate-without-evict",
    "snp-validate-evict",
    "one-cpu-per-ccx",
    "oom-reaper",
    "flush-in-vcpu-thread",
    "host-mapping-only",
);

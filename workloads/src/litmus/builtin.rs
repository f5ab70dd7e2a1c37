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
    "three-flushers",
    "two-vcpus-first-entry",
    "dma-on-coherent-part",
    "no-dma-on-coherent-part",
    "reclaim-while-running-no-dma",
    "two-flushers-no-dma",
    "snp-free-without-clflush",
    "snp-free-clflush",
    "dma-to-assigned-page",
    "host-writes-assigned-page",
    "dma-reads-before-write-back",
    "asid-recycle-wbnoinvd",
    "asid-recycle-partial-ccx",
    "asid-recycle-unnoticed",
    "asid-recycle-undrained",
    "asid-bitmap",
    "mirror-pair",
    "mirror-in-two-mms",
    "mirror-left-out",
    "cpu-offline",
    "cpu-offline-flushed-first",
    "shared-page",
    "store-buffering",
    "store-buffering-fenced",
    "spin-with-irqs-off",
    "page-to-other-vm",
    "host-mapped-clflush",
    "unpinned-reclaim",
    "deactivate-before-df-flush",
    "deactivate-without-df-flush",
    "snp-decommission-before-df-flush",
    "vmsa-free-coherent",
    "page-flush-fault",
    "vmsa-flush-dropped",
    "init-error-swallowed",
    "vcpu-creation-fails",
    "sev-vcpu-created",
    "vm-calls-refused",
    "migration-without-mask",
    "mirror-leaks-mask",
    "decommission-fails-leaks-mask",
    "migration-leaves-lines",
    "region-after-move",
    "context-moves-refused",
    "context-moves-while-running",
    "contexts-move-crosswise",
    "moved-context-ends",
    "moved-context-leaks-mask",
    "mirror-outlives-owner",
    "snp-context-moves",
    "unregister-and-reuse",
    "memslot-deleted",
    "memslot-deleted-while-running",
    "sev-init",
    "snp-init-and-shutdown",
    "snp-guest-without-snp-init",
    "firmware-updated",
    "firmware-page-over-host-lines",
    "vmsa-flush-dropped-es",
    "vmsa-after-move",
    "gmem-freed-without-clflush",
    "asid-recycle",
    "module-unloaded",
    "region-clflush-unlocked",
    "region-of-another-vm",
    "unregister-while-running",
    "unpin-beside-madvise",
    "launch-over-host-lines",
    "register-over-host-lines",
    "vmsa-over-host-lines",
    "destroy-without-flush",
    "destroy-pinned-without-flush",
    "snp-vm-ends",
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
    "flush-before-zap",
    "freed-before-acknowledged",
    "private-over-host-lines",
    "mask-without-offstack",
    "c-bit-cleared",
    "host-reads-old-line",
    "received-over-clean-lines",
    "kexec-leaves-lines",
    "trylock-spun-for",
);

#[cfg(test)]
mod tests {
    #[test]
    fn each_file_of_the_corpus_is_built_in() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("litmus");
        let names =
            std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a file").file_name());
        let names = names.map(|name| name.to_string_lossy().trim_end_matches(".litmus").to_owned());
        let missing: Vec<String> = names.filter(|name| !super::BUILTIN.iter().any(|b| b.0 == name)).collect();
        assert!(missing.is_empty(), "not in the list: {missing:?}");
    }
}

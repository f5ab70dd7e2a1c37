//! The helper module's file, before anybody loads it.

use std::path::Path;

/// The module's name, as /proc/modules has it.
const MODULE: &str = "sevsim_flush";

/// Whether the module is loaded.
#[must_use]
pub fn loaded() -> bool {
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.lines().any(|l| l.split(' ').next() == Some(MODULE))
}

/// Whether a file looks like a module that this kernel may load, as far as can be told without loading it.
///
/// # Errors
/// Why not.
pub fn loadable(path: &Path) -> Result<(), String> {
    if loaded() {
        return Ok(());
    }
    let wrong = |why: &str| format!("--load-module {}: {why}", path.display());
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(wrong("this is no file"));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(&e.to_string()))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(wrong("this is no module of a kernel"));
    }
    let known = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let built = version(&bytes).ok_or_else(|| wrong("this is no module of a kernel: it names none"))?;
    if built != known.trim() {
        return Err(wrong(&format!("it was built for Linux {built}; this is {}", known.trim())));
    }
    if std::fs::read_to_string("/proc/sys/kernel/modules_disabled").is_ok_and(|off| off.trim() == "1") {
        return Err(wrong(
            "this kernel loads no module until it is booted again (kernel.modules_disabled is 1)",
        ));
    }
    // CAP_SYS_MODULE is bit 16.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let may = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok());
    if may.is_some_and(|caps| caps >> 16 & 1 == 0) {
        return Err(wrong("only root (CAP_SYS_MODULE) may"));
    }
    Ok(())
}

/// The kernel that a module says it was built for.
fn version(module: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"vermagic=";
    let at = module.windows(KEY.len()).position(|w| w == KEY)?;
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|b| !b.is_ascii_graphic())?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_loaded_is_known_before() {
        if loaded() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("sevsim-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("x.ko");
        let why = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            loadable(&file).unwrap_err()
        };
        assert!(why(b"#!/bin/sh\n").contains("no module of a kernel"));
        assert!(why(b"\x7fELF\0\0").contains("names none"));
        assert!(why(b"\x7fELF\0vermagic=1.2.3-old SMP\0").contains("built for Linux 1.2.3-old; this is "));
        assert!(loadable(&folder).unwrap_err().contains("no file"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(loadable(&file).unwrap_err().contains("No such file"));
    }
}

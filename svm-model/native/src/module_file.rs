//! The helper module's file, before anybody loads it.

use std::path::Path;

use crate::probe::Place;

/// How a module ends that somebody has signed.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The module's name, as /proc/modules has it.
const MODULE: &str = "sevsim_flush";

/// Whether the module is loaded.
#[must_use]
pub fn loaded() -> bool {
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.lines().any(|l| l.split(' ').next() == Some(MODULE))
}

/// Why a file cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unloadable {
    /// It is no module: another file was meant.
    NoModule(String),
    /// This host does not load it.
    NotHere(String),
}

impl Unloadable {
    /// The reason.
    #[must_use]
    pub fn why(&self) -> &str {
        let (Unloadable::NoModule(why) | Unloadable::NotHere(why)) = self;
        why
    }
}

/// Whether a file looks like a module that this kernel may load, as far as can be told without loading it.
///
/// # Errors
/// Why not.
pub fn loadable(path: &Path) -> Result<(), Unloadable> {
    if loaded() { Ok(()) } else { loadable_at(&Place::here(), path) }
}

/// The same on a host that has no module yet.
fn loadable_at(host: &Place, path: &Path) -> Result<(), Unloadable> {
    let said = |why: &str| format!("--load-module {}: {why}", path.display());
    let wrong = |why: &str| Unloadable::NoModule(said(why));
    let not_here = |why: &str| Unloadable::NotHere(said(why));
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(wrong("this is no file"));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(&e.to_string()))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(wrong("this is no module of a kernel"));
    }
    let built = version(&bytes).ok_or_else(|| wrong("this is no module of a kernel: it names none"))?;
    host.loads_modules(bytes.ends_with(SIGNED)).map_err(|(why, _)| not_here(&why))?;
    let known = host.text("proc/sys/kernel/osrelease").unwrap_or_default();
    if built != known {
        return Err(not_here(&format!("it was built for Linux {built}; this is {known}")));
    }
    // CAP_SYS_MODULE is bit 16.
    let status = host.text("proc/self/status").unwrap_or_default();
    let may = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok());
    if may.is_some_and(|caps| caps >> 16 & 1 == 0) {
        return Err(not_here("only root (CAP_SYS_MODULE) may"));
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
        let folder = std::env::temp_dir().join(format!("sevsim-load-{}", std::process::id()));
        let say = |path: &str, text: &[u8]| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        say("cpuid", b"00000000 0 10 68747541 444d4163 69746e65\n");
        say("proc/sys/kernel/osrelease", b"6.12.1\n");
        say("proc/modules", b"");
        let host = Place::scripted(&folder).unwrap();
        let file = folder.join("x.ko");
        let load = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            loadable_at(&host, &file)
        };
        let no_module = |loaded: Result<(), Unloadable>, said: &str| {
            assert!(
                matches!(&loaded, Err(Unloadable::NoModule(why)) if why.contains(said)),
                "{said}: {loaded:?}"
            );
        };
        let not_here = |loaded: Result<(), Unloadable>, said: &str| {
            assert!(
                matches!(&loaded, Err(Unloadable::NotHere(why)) if why.contains(said)),
                "{said}: {loaded:?}"
            );
        };
        no_module(load(b"#!/bin/sh\n"), "no module of a kernel");
        no_module(load(b"\x7fELF\0\0"), "names none");
        no_module(loadable_at(&host, &folder), "no file");
        no_module(loadable_at(&host, &folder.join("none.ko")), "No such file");
        not_here(load(b"\x7fELF\0vermagic=1.2.3-old SMP\0"), "built for Linux 1.2.3-old; this is 6.12.1");
        let good = b"\x7fELF\0vermagic=6.12.1 SMP\0";
        assert_eq!(load(good), Ok(()));
        say("proc/self/status", b"Name:\tx\nCapEff:\t0000000000000000\n");
        not_here(load(good), "only root");
        std::fs::remove_file(folder.join("proc/self/status")).unwrap();
        // What the probe says of the kernel holds of the file, too.
        say("sys/kernel/security/lockdown", b"none [integrity] confidentiality");
        not_here(load(good), "locked down");
        assert_eq!(load(&[&good[..], SIGNED].concat()), Ok(()));
        say("proc/sys/kernel/modules_disabled", b"1\n");
        not_here(load(good), "loads no more");
        std::fs::remove_file(folder.join("proc/modules")).unwrap();
        not_here(load(good), "loads none");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

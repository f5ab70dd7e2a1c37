//! What a calibration changes on a host and gives back, and whether it may flush there at all.
//!
//! *Promise*: whatever was changed is put back when its [`Undo`] ends, on an error and a panic too; [`undo_all`] does it for
//! a program that is about to leave at once, and waits for a change that is being made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Action = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// The next change's number.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What is still to be put back, the last change last.
static PENDING: Mutex<Vec<(u64, String, Action)>> = Mutex::new(Vec::new());

/// A change that is put back at the end of this value.
#[derive(Debug)]
#[must_use = "the change is put back at once otherwise"]
pub struct Undo(u64);

/// Held while something is changed or put back: nobody leaves in between.
static CHANGING: Mutex<()> = Mutex::new(());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes something, and remembers how to put it back: `undo` says what that is, for whoever reads that it failed.
///
/// # Errors
/// The change's; nothing is put back then.
pub fn change<T, E>(
    undo: (String, impl FnOnce() -> Result<(), String> + Send + 'static),
    change: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Undo), E> {
    let _changing = locked(&CHANGING);
    let changed = change()?;
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    locked(&PENDING).push((id, undo.0, Box::new(undo.1)));
    Ok((changed, Undo(id)))
}

impl Drop for Undo {
    fn drop(&mut self) {
        let _changing = locked(&CHANGING);
        let mine = {
            let mut pending = locked(&PENDING);
            let at = pending.iter().position(|p| p.0 == self.0);
            at.map(|at| pending.remove(at))
        };
        if let Some((_, _, action)) = mine {
            // Nobody is left to be told; the next change of the same thing will say what is wrong.
            drop(action());
        }
    }
}

/// What [`undo_all`] could not put back; as long as this lives, nothing is changed any more.
#[derive(Debug)]
pub struct Left {
    /// A line each.
    pub said: Vec<String>,
    _changing: MutexGuard<'static, ()>,
}

/// Puts everything back, the last change first; also one that is being made, as soon as it is.
#[must_use]
pub fn undo_all() -> Left {
    let changing = locked(&CHANGING);
    let all = std::mem::take(&mut *locked(&PENDING));
    let failed = |(_, what, action): (u64, String, Action)| action().err().map(|e| format!("{what}: {e}"));
    Left { said: all.into_iter().rev().filter_map(failed).collect(), _changing: changing }
}

/// Sets the governor of these pCPUs' clocks.
///
/// # Errors
/// There is none to set, there is no such governor, or this user may not; what was set is put back then.
pub fn set_governor(root: &Path, pcpus: &[usize], governor: &str) -> Result<Vec<Undo>, String> {
    let mut undo = Vec::new();
    for pcpu in pcpus {
        let (path, before) = settable(root, *pcpu, governor)?;
        let what = format!("governor of pCPU {pcpu} back to {before}");
        let place = path.clone();
        let back = move || fs::write(&place, &before).map_err(|e| e.to_string());
        let set = || fs::write(&path, governor).map_err(|e| format!("--governor: {}: {e}", path.display()));
        undo.push(change((what, back), set)?.1);
    }
    Ok(undo)
}

/// Where a pCPU's governor is set, and which one it is now.
fn settable(root: &Path, pcpu: usize, governor: &str) -> Result<(PathBuf, String), String> {
    let folder = root.join(format!("sys/devices/system/cpu/cpu{pcpu}/cpufreq"));
    let path: PathBuf = folder.join("scaling_governor");
    let before = fs::read_to_string(&path).map_err(|e| {
        format!(
            "--governor: {}: {e}: this kernel sets no clock of pCPU {pcpu} (in a VM the host does)",
            path.display()
        )
    })?;
    let known = fs::read_to_string(folder.join("scaling_available_governors")).unwrap_or_default();
    if !known.split_whitespace().any(|g| g == governor) {
        return Err(format!("--governor {governor}: pCPU {pcpu} has: {}", known.trim()));
    }
    Ok((path, before.trim().to_owned()))
}

/// Whether [`set_governor`] would do it, as far as can be told without doing it.
///
/// # Errors
/// Why not.
pub fn could_set_governor(root: &Path, pcpus: &[usize], governor: &str) -> Result<(), String> {
    for pcpu in pcpus {
        let (path, _) = settable(root, *pcpu, governor)?;
        let opened = fs::File::options().write(true).open(&path);
        opened.map_err(|e| format!("--governor: {}: {e}", path.display()))?;
    }
    Ok(())
}

/// The governor of a pCPU's clock, if there is one.
#[must_use]
pub fn governor(root: &Path, pcpu: usize) -> Option<String> {
    let path = root.join(format!("sys/devices/system/cpu/cpu{pcpu}/cpufreq/scaling_governor"));
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// VMs of other processes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OtherVms {
    /// Processes that hold a KVM VM open: number and name.
    pub holders: Vec<(u32, String)>,
    /// Processes whose files this user may not see.
    pub hidden: usize,
    /// Why there may be processes that are not even listed.
    pub blind: Option<&'static str>,
}

/// The inode of the first process's own namespace of process numbers: a constant of the kernel's (PROC_PID_INIT_INO).
const FIRST_PIDS: &str = "pid:[4026531836]";

/// Why `/proc` may leave processes out.
fn blind(proc: &Path) -> Option<&'static str> {
    match fs::read_link(proc.join("self/ns/pid")) {
        Ok(pids) if pids.as_os_str() == FIRST_PIDS => {}
        Ok(_) => return Some("this runs in a container that does not show the host's processes"),
        Err(_) => return Some("/proc does not say whose processes it shows (/proc/self/ns/pid)"),
    }
    // Whether /proc hides processes or not: the first one is always there, and always somebody else's.
    if !proc.join("1").exists() {
        return Some("/proc hides other users' processes (hidepid): be root");
    }
    None
}

/// Looks through the processes below `root`, but for `own`.
#[must_use]
pub fn other_vms(root: &Path, own: u32) -> OtherVms {
    let mut found = OtherVms { blind: blind(&root.join("proc")), ..OtherVms::default() };
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let numbered = processes.filter_map(|p| Some((p.file_name().to_str()?.parse::<u32>().ok()?, p.path())));
    let mut numbered: Vec<_> = numbered.filter(|(pid, _)| *pid != own).collect();
    numbered.sort();
    for (pid, path) in numbered {
        let Ok(files) = fs::read_dir(path.join("fd")) else {
            // One that has just ended hides nothing.
            found.hidden += usize::from(path.exists());
            continue;
        };
        let is_vm = |target: PathBuf| target.to_string_lossy().contains("kvm-vm");
        if files.flatten().any(|f| fs::read_link(f.path()).is_ok_and(is_vm)) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            found.holders.push((pid, name.trim().to_owned()));
        }
    }
    found
}

impl OtherVms {
    /// Whether caches as a whole may be flushed; `yes` if the user has said so.
    ///
    /// # Errors
    /// Why not, and what to type to do it all the same.
    pub fn may_flush(&self, yes: bool) -> Result<(), String> {
        self.may_flush_saying(yes, true)
    }

    /// The same with a reason that others may read: it names no process.
    ///
    /// # Errors
    /// As above.
    pub fn may_flush_unnamed(&self, yes: bool) -> Result<(), String> {
        self.may_flush_saying(yes, false)
    }

    fn may_flush_saying(&self, yes: bool, names: bool) -> Result<(), String> {
        if yes {
            return Ok(());
        }
        let all_the_same =
            "flushing whole caches slows every tenant; --yes-flush-this-host does it all the same";
        if !self.holders.is_empty() {
            let some: Vec<String> =
                self.holders.iter().take(3).map(|(pid, name)| format!("{name} ({pid})")).collect();
            let more = if self.holders.len() > 3 { ", ..." } else { "" };
            let n = self.holders.len();
            if !names {
                return Err(format!("VMs of other processes run here ({n}), and {all_the_same}"));
            }
            return Err(format!(
                "VMs of other processes run here ({n}: {}{more}), and {all_the_same}",
                some.join(", ")
            ));
        }
        if let Some(why) = self.blind {
            return Err(format!("whether other VMs run here is not to be seen: {why}; and {all_the_same}"));
        }
        if self.hidden > 0 {
            let n = self.hidden;
            return Err(format!(
                "whether other VMs run here is not to be seen by this user ({n} processes), and {all_the_same}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    /// The list of what is pending is the program's, so its tests are one.
    #[test]
    fn changes_are_put_back_in_the_end_and_all_at_once_the_last_first() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let undo = |n: u32| {
            let told = Arc::clone(&told);
            let back = move || {
                told.lock().unwrap().push(n);
                if n == 2 { Err("stuck".to_owned()) } else { Ok(()) }
            };
            change((format!("change {n}"), back), || Ok::<(), ()>(())).unwrap().1
        };
        let first = undo(1);
        drop(undo(5));
        assert_eq!(*told.lock().unwrap(), [5]);
        let (second, third) = (undo(2), undo(3));
        assert!(undo_all().said.contains(&"change 2: stuck".to_owned()));
        assert_eq!(*told.lock().unwrap(), [5, 3, 2, 1]);
        drop((first, second, third));
        assert_eq!(told.lock().unwrap().len(), 4, "not twice");
        // A change that fails has nothing to put back; one that is being made is waited for.
        let back = |n| {
            let told = Arc::clone(&told);
            move || {
                told.lock().unwrap().push(n);
                Ok(())
            }
        };
        assert_eq!(change((String::new(), back(6)), || Err::<(), u8>(7)).unwrap_err(), 7);
        let (begun, wait) = (Arc::new(Barrier::new(2)), Duration::from_millis(200));
        let slow = std::thread::spawn({
            let (begun, told, back) = (Arc::clone(&begun), Arc::clone(&told), back(9));
            move || {
                let undo = change((String::new(), back), || {
                    begun.wait();
                    std::thread::sleep(wait);
                    told.lock().unwrap().push(8);
                    Ok::<(), ()>(())
                });
                std::mem::forget(undo);
            }
        });
        begun.wait();
        assert!(undo_all().said.is_empty());
        slow.join().unwrap();
        assert_eq!(told.lock().unwrap()[4..], [8, 9]);

        let root = std::env::temp_dir().join(format!("sevsim-governor-{}", std::process::id()));
        let folder = |n: usize| root.join(format!("sys/devices/system/cpu/cpu{n}/cpufreq"));
        for n in 0..2 {
            fs::create_dir_all(folder(n)).unwrap();
            fs::write(folder(n).join("scaling_governor"), "schedutil\n").unwrap();
            fs::write(folder(n).join("scaling_available_governors"), "performance schedutil\n").unwrap();
        }
        let now = || [0, 1].map(|n| governor(&root, n).unwrap());
        assert_eq!(could_set_governor(&root, &[0, 1], "performance"), Ok(()));
        assert!(
            could_set_governor(&root, &[0, 1], "turbo")
                .unwrap_err()
                .contains("--governor turbo: pCPU 0 has:")
        );
        assert!(could_set_governor(&root, &[0, 9], "performance").unwrap_err().contains("pCPU 9"));
        assert_eq!(now(), ["schedutil"; 2], "nothing is set by asking");
        let set = set_governor(&root, &[0, 1], "performance").unwrap();
        assert_eq!(now(), ["performance", "performance"]);
        drop(set);
        assert_eq!(now(), ["schedutil", "schedutil"]);
        assert!(set_governor(&root, &[0, 9], "performance").unwrap_err().contains("pCPU 9"));
        assert_eq!(now(), ["schedutil", "schedutil"], "the first is put back when the second fails");
        assert!(set_governor(&root, &[0], "turbo").unwrap_err().contains("has: performance schedutil"));
        fs::remove_dir_all(&root).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn other_vms_are_found_by_what_their_processes_hold() {
        let root = std::env::temp_dir().join(format!("sevsim-vms-{}", std::process::id()));
        drop(fs::remove_dir_all(&root));
        let process = |pid: u32, target: &str| {
            let fd = root.join(format!("proc/{pid}/fd"));
            fs::create_dir_all(&fd).unwrap();
            fs::write(root.join(format!("proc/{pid}/comm")), format!("p{pid}\n")).unwrap();
            std::os::unix::fs::symlink(target, fd.join("3")).unwrap();
        };
        let pids = root.join("proc/self/ns/pid");
        fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink(FIRST_PIDS, &pids).unwrap();
        process(1, "/dev/null");
        process(10, "/dev/null");
        process(11, "anon_inode:kvm-vm");
        process(12, "anon_inode:kvm-vm");
        let found = other_vms(&root, 12);
        assert_eq!(found, OtherVms { holders: vec![(11, "p11".to_owned())], ..OtherVms::default() });
        assert!(found.may_flush(false).unwrap_err().contains("1: p11 (11)"));
        let unnamed = found.may_flush_unnamed(false).unwrap_err();
        assert!(unnamed.contains("run here (1), and") && !unnamed.contains("11"), "{unnamed}");
        assert_eq!(found.may_flush_unnamed(true), Ok(()));
        assert_eq!(found.may_flush(true), Ok(()));
        fs::remove_dir_all(root.join("proc/11")).unwrap();
        assert_eq!(other_vms(&root, 12).may_flush(false), Ok(()));
        // A process whose files cannot be listed: here, one without the folder.
        fs::create_dir_all(root.join("proc/13")).unwrap();
        assert!(other_vms(&root, 12).may_flush(false).unwrap_err().contains("not to be seen"));
        fs::remove_dir_all(root.join("proc/13")).unwrap();
        // What is not listed: users' processes, and those outside of a container.
        fs::remove_dir_all(root.join("proc/1")).unwrap();
        assert!(other_vms(&root, 12).may_flush(false).unwrap_err().contains("hidepid"));
        process(1, "/dev/null");
        fs::remove_file(&pids).unwrap();
        std::os::unix::fs::symlink("pid:[4026532001]", &pids).unwrap();
        let container = other_vms(&root, 12);
        assert!(container.may_flush(false).unwrap_err().contains("in a container"));
        assert_eq!(container.may_flush(true), Ok(()));
        fs::remove_file(&pids).unwrap();
        assert!(other_vms(&root, 12).may_flush(false).unwrap_err().contains("does not say whose"));
        fs::remove_dir_all(&root).unwrap();
    }
}

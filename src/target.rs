//! A file that an option names, which gets a text as a whole or not at all. What was there before stays until the whole is there:
//! what there is so far is then kept beside it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where a text goes.
#[derive(Debug)]
pub(crate) struct Target {
    option: &'static str,
    /// As it was named.
    named: PathBuf,
    way: Way,
}

/// How it gets there.
#[derive(Debug)]
enum Way {
    /// A file, or nothing yet: written beside it and moved there, as often as there is more to say. This is where a link leads, and where
    /// what there is so far is kept: there, if nothing was.
    Moved { place: PathBuf, so_far: PathBuf },
    /// A device or a pipe: written into, once. Opened from the start, as a shell's redirection is.
    Into(File),
}

impl Target {
    /// Looks at what is there, before there is anything to write.
    ///
    /// # Errors
    /// It is a directory, a disk, a link to nothing or whatever else must not be replaced, or it cannot be written.
    pub(crate) fn new(option: &'static str, named: &Path) -> Result<Target, String> {
        let way = match Target::look(option, named)? {
            Some(place) => {
                let old = fs::metadata(&place).is_ok_and(|m| m.len() > 0);
                let so_far = if old { beside_as(&place, ".partial") } else { place.clone() };
                Way::Moved { place, so_far }
            }
            None => Way::Into(
                File::options()
                    .write(true)
                    .open(named)
                    .map_err(|e| format!("{option} {}: cannot be written: {e}", named.display()))?,
            ),
        };
        Ok(Target { option, named: named.to_owned(), way })
    }

    /// The file's place; none of a device or a pipe, which is not opened.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn look(option: &str, named: &Path) -> Result<Option<PathBuf>, String> {
        let refused = |why: &str| format!("{option} {}: {why}", named.display());
        let wrong = |e: std::io::Error| refused(&format!("cannot be written: {e}"));
        let is_link = fs::symlink_metadata(named).is_ok_and(|m| m.is_symlink());
        let place = match fs::metadata(named) {
            Ok(found) if found.is_dir() => return Err(refused("this is a directory")),
            // /dev/stdout, where that is a file: the name is the kernel's, and the file is somebody's who goes on writing it.
            Ok(found)
                if found.is_file() && is_link && ["/dev", "/proc"].iter().any(|d| named.starts_with(d)) =>
            {
                return Err(refused("this leads to a file that is open: name the file itself"));
            }
            Ok(found) if found.is_file() => fs::canonicalize(named).map_err(wrong)?,
            Ok(found) if may_be_written_into(found.file_type()) => return Ok(None),
            Ok(_) => return Err(refused("this is neither a file nor a pipe nor a character device")),
            Err(_) if is_link => return Err(refused("this is a link that leads nowhere")),
            Err(_) => named.to_owned(),
        };
        let (part, file) = beside(&place).map_err(wrong)?;
        drop(file);
        fs::remove_file(part).map_err(wrong)?;
        Ok(Some(place))
    }

    /// Writes what there is so far, if the next text can take its place.
    pub(crate) fn keep(&self, text: &str) -> Result<(), String> {
        match &self.way {
            Way::Moved { so_far, .. } => self.said(moved(so_far, text)),
            Way::Into(_) => Ok(()),
        }
    }

    /// Writes the last text.
    pub(crate) fn finish(&self, text: &str) -> Result<(), String> {
        match &self.way {
            Way::Moved { place, so_far } => {
                self.said(moved(place, text))?;
                if place != so_far && so_far.exists() {
                    self.said(fs::remove_file(so_far))?;
                }
                Ok(())
            }
            Way::Into(file) => self.said((&*file).write_all(text.as_bytes())),
        }
    }

    /// Writes a text that is not all that there should be: beside a file that was there, which stays. Gives where.
    pub(crate) fn leave(&self, text: &str) -> Result<&Path, String> {
        match &self.way {
            Way::Moved { so_far, .. } => self.said(moved(so_far, text)).map(|()| so_far.as_path()),
            Way::Into(file) => self.said((&*file).write_all(text.as_bytes())).map(|()| self.named.as_path()),
        }
    }

    fn said(&self, done: std::io::Result<()>) -> Result<(), String> {
        done.map_err(|e| format!("{} {}: cannot be written: {e}", self.option, self.named.display()))
    }
}

#[cfg(unix)]
fn may_be_written_into(found: fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    found.is_char_device() || found.is_fifo()
}

#[cfg(not(unix))]
fn may_be_written_into(_found: fs::FileType) -> bool {
    false
}

/// The name with more behind it.
fn beside_as(place: &Path, more: &str) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(more);
    place.with_file_name(name)
}

/// A new file in the same folder. Nothing that is there is opened, followed or removed.
fn beside(place: &Path) -> std::io::Result<(PathBuf, File)> {
    let beside = beside_as(place, &format!(".part-{}", std::process::id()));
    let open = File::options().write(true).create_new(true).open(&beside);
    let file = open.map_err(|e| {
        if e.kind() != std::io::ErrorKind::AlreadyExists {
            return e;
        }
        // A process of this number was killed while it wrote.
        std::io::Error::new(e.kind(), format!("{}: {e}: remove it", beside.display()))
    })?;
    Ok((beside, file))
}

fn moved(place: &Path, text: &str) -> std::io::Result<()> {
    let (beside, mut file) = beside(place)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| match fs::metadata(place) {
        Ok(before) => file.set_permissions(before.permissions()),
        Err(_) => Ok(()),
    });
    let moved = written.and_then(|()| fs::rename(&beside, place));
    if moved.is_err() {
        drop(fs::remove_file(&beside));
    }
    moved
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    /// A folder of one test's own.
    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sevsim-target-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path).unwrap();
        path
    }

    fn kept(path: &Path, text: &str) {
        let target = Target::new("--out", path).unwrap();
        target.keep("half").unwrap();
        target.finish(text).unwrap();
    }

    #[test]
    fn files_are_replaced_and_what_lies_beside_them_stays() {
        let folder = folder("files");
        let (file, link) = (folder.join("p.toml"), folder.join("link"));
        fs::write(folder.join("victim"), "mine").unwrap();
        fs::write(folder.join("p.toml.part"), "mine too").unwrap();
        // The name that is taken first is not followed.
        symlink("victim", folder.join(format!("q.toml.part-{}", std::process::id()))).unwrap();
        let why = Target::new("--out", &folder.join("q.toml")).unwrap_err();
        assert!(why.contains(&format!("q.toml.part-{}: File exists", std::process::id())), "{why}");
        kept(&file, "one");
        symlink("p.toml", &link).unwrap();
        kept(&link, "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "what it leads to is replaced");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!([read("p.toml"), read("victim"), read("p.toml.part")], ["two", "mine", "mine too"]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 5, "nothing is left over");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_old_file_stays_until_the_new_one_is_whole() {
        let folder = folder("old");
        let file = folder.join("p.toml");
        fs::write(&file, "old").unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let target = Target::new("--out", &file).unwrap();
        target.keep("half").unwrap();
        assert_eq!([read("p.toml"), read("p.toml.partial")], ["old", "half"]);
        assert_eq!(target.leave("more").unwrap(), folder.join("p.toml.partial"));
        assert_eq!([read("p.toml"), read("p.toml.partial")], ["old", "more"]);
        kept(&file, "new");
        assert_eq!(read("p.toml"), "new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        // Nothing was there: what there is so far stands there.
        let first = folder.join("q.toml");
        assert_eq!(Target::new("--out", &first).unwrap().leave("half").unwrap(), first);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn devices_and_pipes_stay_and_get_the_last_text_only() {
        let folder = folder("devices");
        let null = folder.join("null");
        symlink("/dev/null", &null).unwrap();
        kept(&null, "gone");
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
        let pipe = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || kept(&pipe, "all")
        });
        let mut read = String::new();
        File::open(&pipe).unwrap().read_to_string(&mut read).unwrap();
        writer.join().unwrap();
        assert_eq!(read, "all");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_must_not_be_replaced_is_refused() {
        let folder = folder("refused");
        let refused = |path: &Path, said: &str| {
            let why = Target::new("--out", path).unwrap_err();
            assert!(why.contains(said), "{why}");
        };
        refused(&folder, "this is a directory");
        symlink(&folder, folder.join("up")).unwrap();
        refused(&folder.join("up"), "this is a directory");
        symlink("nothing", folder.join("dangling")).unwrap();
        refused(&folder.join("dangling"), "a link that leads nowhere");
        refused(&folder.join("none/p.toml"), "cannot be written: No such file");
        let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        refused(&folder.join("socket"), "neither a file nor a pipe");
        let open = File::create(folder.join("open")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        refused(&PathBuf::from(format!("/proc/self/fd/{number}")), "a file that is open");
        fs::remove_dir_all(&folder).unwrap();
    }
}

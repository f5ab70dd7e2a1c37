//! `sevsim module`: writes the helper module's sources with the policies that it is to run, ready to be built.

use std::fs;
use std::path::Path;

use svm_native::program::Shape;
use svm_native::sources;

use crate::args::ModuleArgs;
use crate::exit::{Exit, Failure};
use crate::names;
use crate::native::program::{Policy, policy};
use crate::native::text::{module_file, table_file};
use crate::output::Output;

/// What policies are looked at for: whether one can run does not depend on the host's size.
fn any_host() -> Shape {
    Shape { core: vec![0, 1], llc: vec![0, 0], vms: 1, vcpu_vm: vec![0] }
}

/// Does it.
pub(crate) fn module(args: &ModuleArgs, out: &mut Output) -> Result<Exit, Failure> {
    let mut policies = Vec::new();
    for text in names::policies(&args.policies)? {
        match policy(&text, &any_host()) {
            Ok(policy) => policies.push(policy),
            // Of all policies those that can; a policy that was named must.
            Err(why) if args.policies.is_empty() => out.log(&format!("left out: {}", why.message)),
            Err(why) => return Err(why),
        }
    }
    let mut files: Vec<(String, String)> =
        sources::FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    for (n, policy) in policies.iter().enumerate() {
        files.push((format!("policy_{n}.c"), module_file(policy, n)?));
    }
    files.push(("policies.c".to_owned(), table_file(policies.len())));
    write(&args.dir, &files).map_err(Failure::input)?;
    let names: Vec<String> = policies.iter().map(|p: &Policy| p.text.name.clone()).collect();
    out.print(&format!("{}: the helper module with {}\n", args.dir.display(), names.join(", ")));
    out.print(&format!("next: sh {}/build.sh\n", args.dir.display()));
    Ok(Exit::Done)
}

/// Writes the files, into a new or empty folder or into one that has the module; its old policies do not stay.
fn write(dir: &Path, files: &[(String, String)]) -> Result<(), String> {
    let wrong = |path: &Path, e: std::io::Error| format!("{}: cannot be written: {e}", path.display());
    match fs::read_dir(dir) {
        Ok(mut there) => {
            if there.next().is_some() && !dir.join("sevsim_flush.h").is_file() {
                let dir = dir.display();
                return Err(format!(
                    "{dir}: this folder holds other files, and no sevsim_flush.h: name a new or an empty one"
                ));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|e| wrong(dir, e))?
        }
        Err(e) => return Err(format!("{}: cannot be read: {e}", dir.display())),
    }
    let mut n = 0;
    while fs::remove_file(dir.join(format!("policy_{n}.c"))).is_ok() {
        n += 1;
    }
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|e| wrong(&path, e))?;
    }
    Ok(())
}

//! `sevsim calibrate`: measures this host and writes a profile for `--profile`.

use std::path::{Path, PathBuf};

use svm_native::calibrate::{Options, calibrate as measure, plan};
use svm_native::probe::caveat;
use svm_native::profile::{Profile, Reading};
use svm_native::safety::other_vms;
use svm_native::{module_file, noise};

use crate::args::{CalibrateArgs, Format};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::report::number::thousandths;
use crate::report::table::{Cell, Head, styled, table};
use crate::report::{json, style, verdicts};
use crate::target::Target;

/// Does it.
pub(crate) fn calibrate(args: &CalibrateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let options = Options {
        quick: args.quick,
        stop: interrupt::flag(),
        yes_flush: args.yes_flush_this_host,
        governor: args.governor.as_deref(),
    };
    if args.dry_run {
        let loadable = args.load_module.as_ref().map(|path| module_file::loadable(path));
        for line in plan(&options, loadable == Some(Ok(()))) {
            out.print(&format!("{line}\n"));
        }
        if let Some(path) = &args.load_module {
            out.print(&format!("loads {} into the kernel, and unloads it at the end\n", path.display()));
            here_not(out, loadable.unwrap_or(Ok(())).map_err(|why| why.why().to_owned()));
            let others = other_vms(Path::new("/"), std::process::id());
            if let Err(why) = others.may_flush(args.yes_flush_this_host) {
                out.print(&format!("REFUSED: --load-module, and the calibration does not begin: {why}\n"));
            }
        }
        let target = args.out.as_ref().map_or("standard output".to_owned(), |p| p.display().to_string());
        out.print(&format!("then writes the profile to {target}; nothing else of the host is changed\n"));
        for (option, path) in [("--out", &args.out), ("--record-sev", &args.record_sev)] {
            here_not(out, path.as_ref().map_or(Ok(()), |path| Target::look(option, path).map(drop)));
        }
        return Ok(Exit::Done);
    }
    let target = |option, path: &Option<PathBuf>| {
        path.as_ref().map(|path| Target::new(option, path)).transpose().map_err(Failure::input)
    };
    let (to, record) = (target("--out", &args.out)?, target("--record-sev", &args.record_sev)?);
    if let Some(path) = &args.load_module {
        module_file::loadable(path).map_err(Failure::module)?;
        // What the module is for is refused later else, with the module in the kernel.
        let others = other_vms(Path::new("/"), std::process::id());
        others.may_flush(args.yes_flush_this_host).map_err(|why| Failure {
            exit: Exit::Unable,
            message: format!("--load-module is refused: {why}"),
        })?;
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let _loaded = match &args.load_module {
        Some(path) => {
            let loaded = svm_native::helper::Loaded::load(path);
            Some(loaded.map_err(|why| Failure { exit: Exit::Unable, message: why })?)
        }
        None => None,
    };
    let kept = std::cell::RefCell::new(None);
    let not_kept = std::cell::Cell::new(None::<String>);
    let mut tell = |said: &str| {
        if let Some(why) = not_kept.take() {
            out.log(&why);
        }
        out.log(said);
    };
    // A full disk may have room in the end; the numbers are printed in any case.
    let mut keep = |profile: &Profile| {
        *kept.borrow_mut() = Some(profile.clone());
        not_kept.set(to.as_ref().and_then(|to| to.keep(&profile.toml()).err()));
        Ok(())
    };
    let done = measure(&options, &mut tell, &mut keep);
    let done = done.map_err(|why| Failure { exit: Exit::Unable, message: why })?;
    let Some(profile) = kept.into_inner() else {
        out.log("interrupted before a step was done");
        return Err(Failure::interrupted());
    };
    print(args, &profile, out);
    out.log(&noise::sum(&profile.noise).said());
    if let Some(name) = &profile.host.hypervisor {
        out.log(&caveat(name));
    }
    match &record {
        Some(_) if done.exchange.is_empty() => {
            out.log("--record-sev: nothing was asked of the kernel about encrypted guests, so nothing is recorded");
        }
        Some(record) if profile.complete => record.finish(&done.exchange).map_err(Failure::internal)?,
        Some(record) => {
            let place = record.leave(&done.exchange).map_err(Failure::internal)?;
            out.log(&format!("--record-sev: what was asked so far is in {}", place.display()));
        }
        None => {}
    }
    if profile.complete {
        to.map_or(Ok(()), |to| to.finish(&profile.toml())).map_err(Failure::internal)?;
        return Ok(Exit::Done);
    }
    let place = match &to {
        Some(to) => format!(" in {}", to.leave(&profile.toml()).map_err(Failure::internal)?.display()),
        None => String::new(),
    };
    out.log(&format!("interrupted; what was measured is kept{place}. To measure all of it: {}", again(args)));
    Ok(Exit::Saved)
}

/// The command with all its options.
fn again(args: &CalibrateArgs) -> String {
    let mut words = vec!["sevsim calibrate".to_owned()];
    let mut flag = |given: bool, name: &str| words.extend(given.then(|| name.to_owned()));
    flag(args.quick, "--quick");
    flag(args.yes_flush_this_host, "--yes-flush-this-host");
    let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
    for (name, value) in [
        ("--governor", args.governor.clone()),
        ("--load-module", path(&args.load_module)),
        ("--record-sev", path(&args.record_sev)),
        ("--out", path(&args.out)),
    ] {
        words.extend(value.map(|value| format!("{name} {}", for_a_shell(&value))));
    }
    words.join(" ")
}

/// A word as a shell takes it.
fn for_a_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The numbers.
fn print(args: &CalibrateArgs, profile: &Profile, out: &mut Output) {
    match args.format.format {
        Format::Table if args.out.is_none() => out.print(&profile.toml()),
        Format::Table => out.print(&text(profile, out.width())),
        Format::Json => {
            for r in &profile.readings {
                out.print(&json::line(&Line::of(r)));
            }
        }
        Format::Csv => {
            out.print("name,value,low,high,unit,samples,tagged,method\n");
            for r in &profile.readings {
                let [value, low, high] = [r.spread.p50, r.spread.p10, r.spread.p90].map(thousandths);
                let (name, unit) = (r.name.clone(), r.unit.name().to_owned());
                let (samples, tagged) = (r.samples.to_string(), r.tagged.to_string());
                out.print(&verdicts::csv_line(&[
                    name,
                    value,
                    low,
                    high,
                    unit,
                    samples,
                    tagged,
                    r.method.clone(),
                ]));
            }
        }
    }
}

/// What of a plan cannot be done here.
fn here_not(out: &mut Output, could: Result<(), String>) {
    if let Err(why) = could {
        out.print(&format!("HERE NOT: {why}\n"));
    }
}

fn text(profile: &Profile, width: usize) -> String {
    let heads = [
        Head::left("", "number"),
        Head::right("", "median"),
        Head::right("", "p10"),
        Head::right("", "p90"),
        Head::left("", "unit"),
        Head::right("", "samples"),
        Head::right("", "tagged"),
    ];
    let row = |r: &Reading| {
        let [value, low, high] = [r.spread.p50, r.spread.p10, r.spread.p90].map(thousandths);
        let (samples, tagged) = (r.samples.to_string(), r.tagged.to_string());
        [r.name.clone(), value, low, high, r.unit.name().to_owned(), samples, tagged].map(Cell::from).to_vec()
    };
    let rows: Vec<Vec<Cell>> = profile.readings.iter().map(row).collect();
    let mut text = table(&heads, &rows, width);
    text.push_str(&format!("\n{}\n", styled("not measured:", style::strong())));
    for (name, why) in &profile.missing {
        text.push_str(&format!("  {name}: {why}\n"));
    }
    text
}

/// `sevsim.calibrate/1`, a number.
#[derive(Debug, serde::Serialize)]
struct Line<'a> {
    schema: &'static str,
    name: &'a str,
    unit: &'static str,
    value_thousandths: u64,
    low_thousandths: u64,
    high_thousandths: u64,
    samples: usize,
    tagged: usize,
    method: &'a str,
}

impl<'a> Line<'a> {
    fn of(r: &'a Reading) -> Line<'a> {
        Line {
            schema: "sevsim.calibrate/1",
            name: &r.name,
            unit: r.unit.name(),
            value_thousandths: r.spread.p50,
            low_thousandths: r.spread.p10,
            high_thousandths: r.spread.p90,
            samples: r.samples,
            tagged: r.tagged,
            method: &r.method,
        }
    }
}

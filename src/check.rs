//! `sevsim check`: every order of steps, the verdict, and the shortest story of what breaks.

use std::path::Path;

use workloads::check::Verdict;

use crate::args::{CheckArgs, ExpectArg, Format, Stories};
use crate::cases::{Cases, Checked, Way};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::report::check::{Text, next_steps};
use crate::report::{json, verdicts};

/// Cases up to which each violation is told unless the user says otherwise.
const TOLD: usize = 4;

/// Does it.
pub(crate) fn check(args: &CheckArgs, out: &mut Output) -> Result<Exit, Failure> {
    let way = match &args.disk {
        Some(dir) => Way::OnDisk { dir: dir.clone(), resume: args.resume },
        None => args.tried.way(&args.cases.search),
    };
    let cases = Cases::read(&args.litmus, &args.cases)?.tried(way);
    if let Some(path) = &args.save_schedule {
        writable(path)?;
    }
    let stories = args.stories.unwrap_or(if cases.len() > TOLD { Stories::None } else { Stories::First });
    let mut text = Text::new(stories, out.width());
    let mut exit = Exit::Done;
    let mut saved: Result<Option<String>, Failure> = Ok(None);
    let mut violated: Option<Checked> = None;
    if args.cases.search.about.format.format == Format::Csv {
        out.print(&verdicts::csv_head(false));
    }
    let ran = cases.run(&mut |checked| {
        exit = exit.worse(asked(args.expect, &checked));
        match args.cases.search.about.format.format {
            Format::Table => out.print(&text.case(&checked)),
            Format::Json => out.print(&json::line(&json::Check::of(&checked, false))),
            Format::Csv => out.print(&verdicts::csv_row(&checked, false)),
        }
        if violated.is_none() && checked.report.verdict == Verdict::Violated {
            if let (Some(path), Some(schedule)) = (&args.save_schedule, checked.schedules.first()) {
                saved = save(path, schedule).map(|()| Some(path.display().to_string()));
            }
            violated = Some(checked);
        }
    });
    let saved = saved?;
    if args.save_schedule.is_some() && saved.is_none() {
        out.log("no schedule saved: nothing is violated");
    }
    match (&violated, args.cases.search.about.format.format) {
        (Some(first), Format::Table) => out.print(&next_steps(first, saved.as_deref(), stories, out.width())),
        (Some(_), Format::Json | Format::Csv) => {
            if let Some(path) = saved {
                out.log(&format!("schedule saved: sevsim replay {path}"));
            }
        }
        (None, _) => {}
    }
    Ok(cases.end(&ran, "check", exit, out))
}

/// How one verdict counts, given which one was asked for.
fn asked(expect: ExpectArg, checked: &Checked) -> Exit {
    match (expect, checked.exit()) {
        (ExpectArg::Violated, Exit::Done) => Exit::Violated,
        (ExpectArg::Violated, Exit::Violated) => Exit::Done,
        (_, exit) => exit,
    }
}

/// Fails early if the file cannot be written: before a long search, not after it.
fn writable(path: &Path) -> Result<(), Failure> {
    let existed = path.exists();
    std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|e| wrong(path, &e))?;
    if !existed {
        // It was made only to see whether it can be.
        drop(std::fs::remove_file(path));
    }
    Ok(())
}

fn save(path: &Path, schedule: &str) -> Result<(), Failure> {
    std::fs::write(path, schedule).map_err(|e| wrong(path, &e))
}

fn wrong(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!("--save-schedule {}: cannot be written: {error}", path.display()))
}

//! Measures what the project promises about speed and size, against peers that take turns with it in one run.
//!
//! Neighbours: `scripts/bench` builds what this needs, names it in `TOOLCELL_BENCH_FILES`, and starts this as root and
//! as an ordinary user. Never: judges by numbers of another run or machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is the result")]

mod arguments;
mod compile;
mod doors;
mod floor;
mod leaks;
mod load;
mod measure;
mod record;
mod relay;
mod spares;
mod whole;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::{Result, Row};

/// Enough for a median that comes out the same again.
const ROUNDS: usize = 200;

/// What is measured, in this order; `TOOLCELL_BENCH_ONLY` names some of them.
const PARTS: &[&str] = &[
    "processes",
    "compiler",
    "launches",
    "arguments",
    "records",
    "answers",
    "spares",
    "load",
    "results",
    "work",
    "leaks",
    "doors",
];

fn rows() -> Result<Vec<Row>> {
    let files = std::env::var_os("TOOLCELL_BENCH_FILES")
        .map(PathBuf::from)
        .ok_or("`TOOLCELL_BENCH_FILES` is not set; start this with `scripts/bench`")?;
    let rounds = match std::env::var("TOOLCELL_BENCH_ROUNDS") {
        Ok(text) => text.parse()?,
        Err(_) => ROUNDS,
    };
    let toolcell = files.join("toolcell");
    let root = toolcell::sys::identity::effective().0 == 0;
    let only = std::env::var("TOOLCELL_BENCH_ONLY").ok();
    if let Some(unknown) = only.iter().flat_map(|only| only.split(',')).find(|part| !PARTS.contains(part)) {
        return Err(format!("`TOOLCELL_BENCH_ONLY` has `{unknown}`; there are {}", PARTS.join(", ")).into());
    }
    let mut rows = Vec::new();
    for part in PARTS
        .iter()
        .filter(|part| only.as_ref().is_none_or(|only| only.split(',').any(|each| each == **part)))
    {
        eprintln!("measuring {part}");
        match *part {
            "processes" => rows.extend(whole::rows(&toolcell, &files, root, rounds)?),
            "compiler" => rows.push(compile::row(&toolcell, &files, rounds)?),
            "launches" => rows.extend(floor::rows(&files, rounds)?),
            "arguments" => rows.push(arguments::row()?),
            "records" => rows.push(record::row()?),
            "answers" => rows.push(relay::answers(&toolcell, &files, rounds)?),
            "spares" => rows.extend(spares::rows(&toolcell, &files, root, rounds)?),
            "work" => rows.extend(work::rows(&toolcell, &files, rounds)?),
            "load" => rows.extend(load::rows(&toolcell, &files, root)?),
            "doors" => rows.extend(doors::rows(&toolcell, &files, root, rounds)?),
            "results" => rows.extend(relay::large(&toolcell, &files)?),
            _ => rows.extend(leaks::rows(&toolcell, &files)?),
        }
    }
    if let Some(into) = std::env::var_os("TOOLCELL_BENCH_SERIES").filter(|_| root) {
        eprintln!("measuring series");
        load::series(&toolcell, &files, &PathBuf::from(into))?;
    }
    relay::clean()?;
    Ok(rows)
}

fn print(rows: &[Row]) {
    let cells = |row: &Row| {
        let verdict = match row.holds {
            Some(true) => "ok",
            Some(false) => "OVER",
            None => "",
        };
        [&row.what, &row.ours, &row.peer, &row.found, &row.limit]
            .map(String::clone)
            .into_iter()
            .chain([verdict.to_owned()])
    };
    let head = ["what", "toolcell", "peer", "found", "limit", ""].map(str::to_owned);
    let lines: Vec<Vec<String>> =
        std::iter::once(head.to_vec()).chain(rows.iter().map(|row| cells(row).collect())).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    for line in &lines {
        let padded = line.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at).unwrap_or(0)));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn main() -> ExitCode {
    match rows() {
        Ok(rows) => {
            print(&rows);
            if rows.iter().any(|row| row.holds == Some(false)) {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

//! Brindle beside others on the same drives in the same guest. `md`: the kernel's RAID-5 with a journal. The guest is
//! emulated, so only ratios of one run are told, and the table says so.

use crate::lab::GuestImage;
use crate::process::{self, Failure};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// Members and log device: emulated drives of this size.
const DRIVES: &str = "5";
const DRIVE_SIZE: &str = "192M";

/// Time limit of a guest, in seconds.
const GUEST_LIMIT: &str = "2400";

/// Rounds whose medians are told.
const ROUNDS_MAX: usize = 9;

/// What each round measured of one thing: MD's figure and Brindle's.
type Figures = Vec<(f64, f64)>;

/// `cargo xtask compare md [SECONDS [ROUNDS]]`: measures and writes `deploy/bench/md.md`.
pub(crate) fn run(words: &[&str]) -> Result<String, Failure> {
    let usage = || {
        let known = format!("md [SECONDS of each measurement, 1 to 120 [ROUNDS, 1 to {ROUNDS_MAX}]]");
        Failure::Usage(format!("compare: known is {known}"))
    };
    let (seconds, rounds) = match words {
        ["md"] => (10, 1),
        ["md", seconds] => (seconds.parse().map_err(|_| usage())?, 1),
        ["md", seconds, rounds] => (seconds.parse().map_err(|_| usage())?, rounds.parse().map_err(|_| usage())?),
        _ => return Err(usage()),
    };
    if !(1..=120).contains(&seconds) || !(1..=ROUNDS_MAX).contains(&rounds) {
        return Err(usage());
    }
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle"])?;
    let image = GuestImage::standard();
    image.make()?;
    let mut measured = BTreeMap::new();
    let mut said = String::new();
    for _ in 0..rounds {
        said = measure(&image, seconds)?;
        let mut of_md = BTreeMap::new();
        for line in said.lines().filter_map(|line| line.strip_prefix("= ")) {
            let (who, what, figure) = result(line)?;
            match (who, of_md.remove(&what)) {
                ("md", None) => drop(of_md.insert(what, figure)),
                ("brindle", Some(md)) => measured.entry(what).or_insert_with(Figures::new).push((md, figure)),
                _ => return Err(Failure::found(format!("compare: no pair: {line}"))),
            }
        }
        if let Some((what, _)) = of_md.pop_first() {
            return Err(Failure::found(format!("compare: Brindle lacks {}", what.0)));
        }
    }
    if measured.is_empty() {
        return Err(Failure::found("compare: the guest measured nothing".to_owned()));
    }
    let rows: Vec<String> = measured.iter().map(|((what, unit), figures)| row(what, unit, figures)).collect();
    let out = process::root().join("deploy/bench/md.md");
    process::write(&out, &document(seconds, rounds, &rows, &said))?;
    Ok(format!("written: deploy/bench/md.md\n{}", rows.join("\n")))
}

/// One round on new drives: MD's power is cut in mid-write, then it is measured on the same drives. Brindle has a guest of its own.
fn measure(image: &GuestImage, seconds: u32) -> Result<String, Failure> {
    let disks = process::root().join("target/lab/compare");
    process::fresh_folder(&disks)?;
    guest(image, &disks, seconds, "crash", &["--crash-on", "@crash"])?;
    let md = guest(image, &disks, seconds, "md", &[])?;
    process::fresh_folder(&disks)?;
    let brindle = guest(image, &disks, seconds, "brindle", &[])?;
    std::fs::remove_dir_all(&disks).map_err(|error| Failure::File(disks, error))?;
    Ok(md + &brindle)
}

fn guest(
    image: &GuestImage,
    disks: &std::path::Path,
    seconds: u32,
    phase: &str,
    options: &[&str],
) -> Result<String, Failure> {
    let lab = process::root().join("deploy/lab");
    let output = Command::new(lab.join("guest-run"))
        .arg("--cache")
        .arg(image.folder())
        .arg("--disks")
        .arg(disks)
        .args(["--nvme", DRIVES, "--nvme-size", DRIVE_SIZE, "--no-net", "--mem", "2048", "--timeout", GUEST_LIMIT])
        .args(options)
        .args(["--env", &format!("SECONDS_EACH={seconds}"), "--env", &format!("PHASE={phase}"), "--put"])
        .arg(process::root().join("target/release/brindle"))
        .arg(lab.join("compare-md.sh"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::Start("deploy/lab/guest-run".to_owned(), error))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    if output.status.success() { Ok(said) } else { Err(Failure::found(format!("compare-md.sh: {}", output.status))) }
}

/// What a line `WHO|WHAT|UNIT|FIGURE` tells: who, what in which unit, how much.
fn result(line: &str) -> Result<(&str, (String, String), f64), Failure> {
    let malformed = || Failure::found(format!("compare: no result: {line}"));
    let [who, what, unit, figure] = line.split('|').collect::<Vec<_>>().try_into().map_err(|_| malformed())?;
    Ok((who, (what.to_owned(), unit.to_owned()), figure.parse().map_err(|_| malformed())?))
}

/// A row of the table: the medians of both, and of the ratios of the rounds, since rounds differ more than what is in one.
fn row(what: &str, unit: &str, figures: &Figures) -> String {
    let md = median(figures.iter().map(|(md, _)| *md));
    let brindle = median(figures.iter().map(|(_, brindle)| *brindle));
    let ratios = figures.iter().filter(|(md, _)| *md > 0.0).map(|(md, brindle)| brindle / md);
    let ratio = if figures.iter().any(|(md, _)| *md > 0.0) { format!("{:.2}", median(ratios)) } else { "-".to_owned() };
    format!("| {what} | {} {unit} | {} {unit} | {ratio} |", short(md), short(brindle))
}

/// The middle one; the upper of two in the middle.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A number without more digits than it is worth.
fn short(number: f64) -> String {
    if number >= 100.0 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

fn document(seconds: u32, rounds: usize, rows: &[String], said: &str) -> String {
    let notes: Vec<&str> =
        said.lines().filter(|line| line.contains("recovering") || line.contains("recovered from the log")).collect();
    format!(
        "# Brindle and MD\n\n\
         RAID-5 of three members and parity with one log device, on emulated drives of one guest each, one after the other: the \
         kernel's MD with a journal used in place, and Brindle over NVMe/TCP through the guest's loopback; both hold 384 MiB. \
         {seconds} s for each figure; rounds, of which medians are told: {rounds}. The guest is emulated: only the ratios mean anything, and \
         those only roughly. Made by `cargo xtask compare md {seconds} {rounds}`.\n\n\
         | what | MD | Brindle | Brindle / MD |\n|---|---:|---:|---:|\n{}\n\n\
         *Recovery* is from the start of `mdadm --assemble` to the first block read, after a power cut, and from the start of the \
         process to the first host served, after a SIGKILL, each after 20 s of random writes with whatever was then in the log from \
         its tail on; Brindle was told to let nothing leave the log for its age, which MD does not know. *Log gone round*: more \
         than the log holds was written right before. *Rebuilds* are of a member that was failed and came back as a new one, with \
         both sides' own default for how much they leave to hosts. MD's array was assembled anew for that and in write-through, \
         Brindle's in write-back: a member that fails while MD's journal is or was in write-back ends this kernel's thread of the \
         array (a BUG in `r5c_make_stripe_write_out`).\n\n{}\n",
        rows.join("\n"),
        notes.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_a_row_with_its_ratio() {
        let (who, (what, unit), figure) = result("brindle|write-back, random writes|IOPS|2500").unwrap();
        assert_eq!(who, "brindle");
        let made = row(&what, &unit, &vec![(1000.0, figure)]);
        assert_eq!(made, "| write-back, random writes | 1000 IOPS | 2500 IOPS | 2.50 |");
        for wrong in ["", "a|b|c", "md|a|IOPS|x"] {
            assert!(result(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rounds_are_told_by_their_medians() {
        let figures = vec![(10.0, 30.0), (40.0, 80.0), (20.0, 20.0)];
        assert_eq!(row("rebuild", "MiB/s", &figures), "| rebuild | 20 MiB/s | 30 MiB/s | 2.00 |");
        assert!(row("rebuild", "MiB/s", &vec![(0.0, 5.25)]).ends_with("| 0 MiB/s | 5.2 MiB/s | - |"));
    }
}

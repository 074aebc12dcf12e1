//! Brindle beside others on the same drives in the same guest. `md`: the kernel's RAID-5 with a journal. The guest is
//! emulated, so only ratios of one run are told, and the table says so.

use crate::lab::GuestImage;
use crate::process::{self, Failure};
use std::process::{Command, Stdio};

/// Members and log device: emulated drives of this size.
const DRIVES: &str = "5";
const DRIVE_SIZE: &str = "768M";

/// Time limit of the guest, in seconds.
const GUEST_LIMIT: &str = "1500";

/// `cargo xtask compare md [SECONDS]`: measures and writes `deploy/bench/md.md`.
pub(crate) fn run(words: &[&str]) -> Result<String, Failure> {
    let seconds = match words {
        ["md"] => "10",
        ["md", seconds] if seconds.parse::<u32>().is_ok_and(|seconds| (1..=120).contains(&seconds)) => seconds,
        _ => return Err(Failure::Usage("compare: known is md [SECONDS of each measurement, 1 to 120]".to_owned())),
    };
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle"])?;
    let image = GuestImage::standard();
    image.make()?;
    let said = measure(&image, seconds)?;
    let rows: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix("= ")).map(row).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Failure::found("compare: the guest measured nothing".to_owned()));
    }
    let out = process::root().join("deploy/bench/md.md");
    process::write(&out, &document(seconds, &rows, &said))?;
    Ok(format!("written: deploy/bench/md.md\n{}", rows.join("\n")))
}

fn measure(image: &GuestImage, seconds: &str) -> Result<String, Failure> {
    let lab = process::root().join("deploy/lab");
    let output = Command::new(lab.join("guest-run"))
        .arg("--cache")
        .arg(image.folder())
        .args(["--nvme", DRIVES, "--nvme-size", DRIVE_SIZE, "--no-net", "--mem", "2048", "--timeout", GUEST_LIMIT])
        .args(["--env", &format!("SECONDS_EACH={seconds}"), "--put"])
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

/// A row of the table from a line `WHAT|UNIT|MD|BRINDLE`.
fn row(line: &str) -> Result<String, Failure> {
    let malformed = || Failure::found(format!("compare: no result: {line}"));
    let [what, unit, md, brindle] = line.split('|').collect::<Vec<_>>().try_into().map_err(|_| malformed())?;
    let number = |text: &str| text.parse::<f64>().map_err(|_| malformed());
    let ratio = number(brindle)? / number(md)?.max(1.0);
    let what = what.strip_suffix(" tail").map_or_else(|| what.to_owned(), |what| format!("{what}: p99.9"));
    Ok(format!("| {what} | {md} {unit} | {brindle} {unit} | {ratio:.2} |"))
}

fn document(seconds: &str, rows: &[String], said: &str) -> String {
    let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("-- served again")).collect();
    format!(
        "# Brindle and MD\n\n\
         RAID-5 of three members and parity with one log device, on emulated drives of one guest, one after the other: the \
         kernel's MD with a journal used in place, and Brindle over NVMe/TCP through the guest's loopback. {seconds} s for each \
         figure. The guest is emulated: only the ratios mean anything, and those only roughly. Made by \
         `cargo xtask compare md {seconds}`.\n\n\
         | what | MD | Brindle | Brindle / MD |\n|---|---:|---:|---:|\n{}\n\n{}\n",
        rows.join("\n"),
        notes.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_a_row_with_its_ratio() {
        let made = row("write-back, random writes|IOPS|1000|2500").unwrap();
        assert_eq!(made, "| write-back, random writes | 1000 IOPS | 2500 IOPS | 2.50 |");
        assert!(row("reads tail|us|10|5").unwrap().contains("reads: p99.9 | 10 us | 5 us | 0.50"));
        for wrong in ["", "a|b|c", "a|IOPS|x|1"] {
            assert!(row(wrong).is_err(), "{wrong}");
        }
    }
}

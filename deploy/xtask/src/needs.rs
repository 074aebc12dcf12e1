//! What the tests need of the machine beside the Rust toolchain. It says exactly what to type, and installs only when
//! it was asked to.

use crate::metrics;
use crate::process::{self, Failure};
use std::path::Path;
use std::process::Command;

/// A program (or file) and the Debian package that brings it, if it is a package that is to be installed.
struct Need {
    what: &'static str,
    package: Option<&'static str>,
    why: &'static str,
}

const PROMTOOL: &str = "promtool";

/// For the lab's guest, which is built from Debian packages, and for what checks it from outside.
const NEEDS: &[Need] = &[
    Need { what: "apt-get", package: Some("apt"), why: "fetches the guest's packages" },
    Need { what: "dpkg-deb", package: Some("dpkg"), why: "unpacks them" },
    Need { what: "cpio", package: Some("cpio"), why: "makes the guest's first file system" },
    Need { what: "zstd", package: Some("zstd"), why: "unpacks the guest's kernel" },
    Need { what: "xz", package: Some("xz-utils"), why: "unpacks the guest's modules" },
    Need { what: "mke2fs", package: Some("e2fsprogs"), why: "makes the guest's root image" },
    Need { what: "flock", package: Some("util-linux"), why: "builds the guest once at a time" },
    Need { what: "ip", package: Some("iproute2"), why: "makes the network namespaces in which addresses go away" },
    Need { what: "awk", package: Some("mawk"), why: "reads package lists" },
    Need { what: "od", package: Some("coreutils"), why: "finds the kernel in its image" },
    Need {
        what: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: Some("debian-archive-keyring"),
        why: "verifies the packages",
    },
    // Fetched from its package and not installed with it: that would start a Prometheus on the machine.
    Need { what: PROMTOOL, package: None, why: "checks the metrics; needs apt's package lists" },
];

/// Looks for everything. With `install`, and as root, what is missing is fetched with apt-get.
pub(crate) fn check(install: bool) -> Result<String, Failure> {
    let mut missing = find_missing();
    if missing.is_empty() {
        return Ok(String::new());
    }
    if install {
        install_packages(&missing)?;
        missing = find_missing();
        if missing.is_empty() {
            return Ok(String::new());
        }
    }
    Err(Failure::Missing(describe(&missing)))
}

fn find_missing() -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| match need.what {
            PROMTOOL => !metrics::can_find_promtool(),
            file if file.starts_with('/') => !Path::new(file).exists(),
            program => process::find_program(program).is_none(),
        })
        .collect()
}

/// What is missing, why it matters, and the line to type.
fn describe(missing: &[&Need]) -> String {
    let mut text = String::from("This machine lacks what the tests need:\n");
    for need in missing {
        text += &format!("  {} ({})\n", need.what, need.why);
    }
    text += &format!("Install it with:\n  {}\n", apt_line(missing));
    text += "or run `cargo xtask ci --install` as root.";
    text
}

fn apt_line(missing: &[&Need]) -> String {
    let packages = packages(missing);
    if packages.is_empty() {
        return "apt-get update".to_owned();
    }
    format!("apt-get update && apt-get install --no-install-recommends {}", packages.join(" "))
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    missing.iter().filter_map(|need| need.package).collect()
}

fn install_packages(missing: &[&Need]) -> Result<(), Failure> {
    println!("{}", apt_line(missing));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-q").arg("-y").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::run(&mut command, &format!("apt-get {}", arguments.join(" ")))
    };
    apt(&["update"])?;
    let packages = packages(missing);
    if packages.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_the_line_to_type() {
        let text = describe(&[&NEEDS[2], &NEEDS[3]]);
        assert!(text.contains("cpio (makes the guest's first file system)"), "{text}");
        assert!(text.contains("apt-get install --no-install-recommends cpio zstd\n"), "{text}");
    }

    #[test]
    fn where_only_lists_are_missing_nothing_is_installed() {
        let promtool = NEEDS.iter().find(|need| need.what == PROMTOOL).unwrap();
        assert!(describe(&[promtool]).contains("Install it with:\n  apt-get update\n"));
    }

    #[test]
    fn each_need_says_why() {
        for need in NEEDS {
            assert!(need.why.len() > 5, "{}", need.what);
        }
    }
}

//! The files of the checkout: which there are, whether the top level holds what it should, and whether the documents'
//! links lead somewhere. It does not look into sources.

use crate::process::{self, Failure};
use std::path::Path;

/// The folders of the top level, by design. `dashboards` appears when it has content.
const TOP_FOLDERS: &[&str] = &["appliance", "reactors", "config", "dashboards", "deploy"];

/// What is no part of the source, wherever it lies: versions, build results, what a demo leaves behind.
const SKIPPED: &[&str] = &[".git", "target", "brindle-demo"];

/// Deepest folder: a bound for the walk.
const DEPTH_MAX: usize = 12;

/// Every text file, with its path from the root and its content.
pub(super) struct Files {
    files: Vec<(String, String)>,
    top_folders: Vec<String>,
}

impl Files {
    /// Walks the checkout. What is no UTF-8 is no text and is left out.
    pub(super) fn list(root: &Path) -> Result<Files, Failure> {
        let mut found = Files { files: Vec::new(), top_folders: Vec::new() };
        found.walk(root, "", 0)?;
        found.files.sort();
        found.top_folders.sort();
        Ok(found)
    }

    /// A tree made of texts, for tests.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Files {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Files { files, top_folders: Vec::new() }
    }

    /// The paths from the root, with slashes.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(path, _)| path.as_str())
    }

    /// Paths with their texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text of one file, if it is there.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.texts().find(|(other, _)| *other == path).map(|(_, text)| text)
    }

    /// Top level and links.
    pub(super) fn check(&self, root: &Path) -> Vec<String> {
        let mut findings = Vec::new();
        for folder in &self.top_folders {
            if !TOP_FOLDERS.contains(&folder.as_str()) && !folder.starts_with('.') {
                findings.push(format!("{folder}/: not a folder of the top level ({})", TOP_FOLDERS.join(" ")));
            }
        }
        for (path, text) in self.texts().filter(|(path, _)| path.ends_with(".md")) {
            let here = Path::new(path).parent().unwrap_or(Path::new(""));
            for link in links(text) {
                if !root.join(here).join(link).exists() {
                    findings.push(format!("{path}: the link to {link} leads nowhere"));
                }
            }
        }
        findings
    }

    fn walk(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Failure> {
        assert!(depth <= DEPTH_MAX, "{} lies too deep", folder.display());
        let fail = |error| Failure::File(folder.to_owned(), error);
        for entry in std::fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                if depth == 0 {
                    self.top_folders.push(name);
                }
                self.walk(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if kind.is_file() && !name.ends_with(".img") {
                match process::read(&entry.path()) {
                    Ok(text) => self.files.push((path, text)),
                    Err(Failure::File(_, error)) if error.kind() == std::io::ErrorKind::InvalidData => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }
}

/// Links of a Markdown text that lead to files: `](path)`, without those to the web and to headings.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let link = rest.split(')').next()?;
        let link = link.split('#').next()?;
        let leads_to_file = !link.is_empty() && !link.contains("://") && !link.contains([' ', '\n', '`']);
        leads_to_file.then_some(link)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_others_left_alone() {
        let text = "see [a](a.md), [b](deploy/b.md#part), [web](https://example.org/x), [here](#part)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["a.md", "deploy/b.md"]);
    }

    #[test]
    fn this_checkout_is_walked() {
        let files = Files::list(&process::root()).unwrap();
        assert!(files.text("deploy/xtask/src/tidy/tree.rs").is_some());
        assert!(files.paths().all(|path| !path.starts_with("target/") && !path.starts_with(".git/")));
    }

    #[test]
    fn a_folder_that_does_not_belong_is_found() {
        let mut files = Files::of(&[("README.md", "[x](no-such-file.md)")]);
        files.top_folders = vec!["appliance".into(), ".ci".into(), "src".into()];
        let found = files.check(Path::new("/"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("src/") && found[1].contains("leads nowhere"), "{found:?}");
    }
}

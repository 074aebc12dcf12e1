//! The habits of the house, held by a check: what is written down once, in `ARCHITECTURE.md` or here, must be true of
//! the tree. It reads files and reports; it repairs nothing.
//!
//! | module | checks |
//! |---|---|
//! | [`layers`] | manifests against the layer table: members, their order, their imports, pinned dependencies |
//! | [`sources`] | front comments, file lengths, unsafe code, unfinished marks, tests that sleep or are skipped |
//! | [`tree`] | the files of the checkout, top-level folders, links of the documents |

mod layers;
mod sources;
mod tree;

use crate::process::{self, Failure};
use crate::reference;
use std::path::Path;

/// Runs every check; all findings come at once.
pub(crate) fn run(root: &Path) -> Result<String, Failure> {
    let files = tree::Files::list(root)?;
    let architecture = process::read(&root.join("ARCHITECTURE.md"))?;
    let layers = layers::Layers::parse(&architecture);
    let unsafe_files = table_cells(&architecture, "unsafe", 0);

    let mut findings = Vec::new();
    findings.extend(layers.check(root)?);
    findings.extend(sources::check(&files, &layers, &unsafe_files));
    findings.extend(files.check(root));
    findings.extend(reference::check(root)?);
    if findings.is_empty() {
        Ok(format!("{} files, {} crates: nothing to say", files.paths().count(), layers.crates().len()))
    } else {
        Err(Failure::Found(findings))
    }
}

/// The rows of the Markdown table between `<!-- NAME: begin` and `<!-- NAME: end`, as trimmed cells without backticks;
/// the heading and the rule below it are left out.
fn table_rows(text: &str, name: &str) -> Vec<Vec<String>> {
    let begin = format!("<!-- {name}: begin");
    let end = format!("<!-- {name}: end");
    text.lines()
        .skip_while(|line| !line.starts_with(&begin))
        .take_while(|line| !line.starts_with(&end))
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect())
        .collect()
}

/// One column of such a table.
fn table_cells(text: &str, name: &str, column: usize) -> Vec<String> {
    table_rows(text, name).into_iter().filter_map(|row| row.into_iter().nth(column)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_between_their_markers() {
        let text = "| x |\n|---|\n| no |\n<!-- t: begin, read -->\n\n| a | b |\n|---|---|\n| `p` | 1, `q` |\n<!-- t: end -->\n| no |";
        assert_eq!(table_rows(text, "t"), [["p", "1, q"]]);
        assert_eq!(table_cells(text, "t", 0), ["p"]);
        assert!(table_rows(text, "other").is_empty());
    }
}

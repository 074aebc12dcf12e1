//! The configuration reference of the README. Its text is the one that the configuration's own code generates, so that
//! what is documented is what is checked. It only replaces what stands between two markers.

use crate::process::{self, Failure};
use std::path::Path;

const BEGIN: &str = "<!-- configuration reference: begin, written by cargo xtask reference -->";
const END: &str = "<!-- configuration reference: end -->";

/// Writes the reference into the README.
pub(crate) fn write(root: &Path) -> Result<String, Failure> {
    let path = root.join("README.md");
    let old = process::read(&path)?;
    let new = replaced(&old, &config::reference())?;
    if new == old {
        return Ok("README.md is up to date".to_owned());
    }
    process::write(&path, &new)?;
    Ok("README.md written".to_owned())
}

/// One finding if the README's reference differs from the generated one.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let old = process::read(&root.join("README.md"))?;
    Ok(match replaced(&old, &config::reference()) {
        Ok(new) if new == old => Vec::new(),
        Ok(_) => vec!["README.md: the configuration reference is out of date; run cargo xtask reference".to_owned()],
        Err(failure) => vec![failure.to_string()],
    })
}

fn replaced(text: &str, reference: &str) -> Result<String, Failure> {
    let missing = || Failure::found(format!("README.md: the lines `{BEGIN}` and `{END}` are missing"));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", reference.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let old = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let new = replaced(&old, "| a |\n").unwrap();
        assert_eq!(new, format!("head\n{BEGIN}\n\n| a |\n\n{END}\ntail\n"));
        assert_eq!(replaced(&new, "| a |").unwrap(), new, "a second time changes nothing");
    }

    #[test]
    fn a_readme_without_markers_is_a_finding() {
        assert!(replaced("nothing here", "x").is_err());
        assert!(replaced(BEGIN, "x").is_err());
    }
}

//! What once failed, as `seeds.txt` lists it: a seed, perhaps how it was run, and what it found.

use raid::Level;

const LIST: &str = include_str!("../seeds.txt");

/// A run that once failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A seed, and the level that it is run at, if that is not its own.
    Run(u64, Option<Level>),
    /// A seed of damaged metadata.
    Mangle(u64),
    /// A seed of spoiled data.
    Scrub(u64),
}

/// All of them.
///
/// # Panics
/// If a line of the list is neither a comment nor begins with a seed.
pub fn kept() -> impl Iterator<Item = Kept> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| parse(line.split_whitespace().next().unwrap_or_default()))
}

fn parse(word: &str) -> Kept {
    let (seed, how) = word.split_once('@').map_or((word, None), |(seed, how)| (seed, Some(how)));
    let seed = seed.parse().expect("a line of seeds.txt begins with a seed or is a comment");
    match how {
        None => Kept::Run(seed, None),
        Some("mangle") => Kept::Mangle(seed),
        Some("scrub") => Kept::Scrub(seed),
        Some(level) => {
            let level = level.parse().ok().and_then(Level::from_code);
            Kept::Run(seed, Some(level.expect("behind the @ stands a level's number, mangle or scrub")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_its_seed_was_run() {
        assert_eq!(parse("12"), Kept::Run(12, None));
        assert_eq!(parse("3048@6"), Kept::Run(3048, Some(Level::Raid6)));
        assert_eq!(parse("7@mangle"), Kept::Mangle(7));
        assert_eq!(parse("8@scrub"), Kept::Scrub(8));
    }
}

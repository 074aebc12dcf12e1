//! The seeds that once failed, as `seeds.txt` lists them: a seed, perhaps the level that it was run at, and what it found.

use raid::Level;

const LIST: &str = include_str!("../seeds.txt");

/// All of them, each with the level that it is run at, if that is not its own.
///
/// # Panics
/// If a line of the list is neither a comment nor begins with a seed.
pub fn kept_seeds() -> impl Iterator<Item = (u64, Option<Level>)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        let (seed, level) = first.split_once('@').map_or((first, None), |(seed, level)| (seed, Some(level)));
        let level = level.map(|level| level.parse().ok().and_then(Level::from_code).expect("the number of a level"));
        (seed.parse().expect("a line of seeds.txt begins with a seed or is a comment"), level)
    })
}

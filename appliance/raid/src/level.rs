//! How redundancy is arranged: what each level is called, what it takes, and what it bears. Where its blocks lie is for
//! [`crate::geometry`].

use core::fmt;

/// Most members of an array.
pub const MAX_MEMBERS: u8 = 32;

/// How redundancy is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// None: stripes over all members.
    Raid0,
    /// Every block on every member.
    Raid1,
    /// One parity block a stripe, on the last member.
    Raid4,
    /// One parity block a stripe, rotating over the members.
    Raid5,
    /// Two parity blocks a stripe, rotating over the members.
    Raid6,
    /// Stripes over pairs of neighbouring members.
    Raid10,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Raid0, Self::Raid1, Self::Raid4, Self::Raid5, Self::Raid6, Self::Raid10];

    /// Parity blocks of a stripe.
    pub const fn parities(self) -> u8 {
        match self {
            Self::Raid0 | Self::Raid1 | Self::Raid10 => 0,
            Self::Raid4 | Self::Raid5 => 1,
            Self::Raid6 => 2,
        }
    }

    /// Fewest members.
    pub const fn min_members(self) -> u8 {
        match self {
            Self::Raid0 => 1,
            Self::Raid1 => 2,
            Self::Raid4 | Self::Raid5 => 3,
            Self::Raid6 | Self::Raid10 => 4,
        }
    }

    /// What the number of members is a multiple of.
    pub const fn members_step(self) -> u8 {
        match self {
            Self::Raid10 => 2,
            _ => 1,
        }
    }

    /// The number that superblocks store, which is the one in its name.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raid0 => 0,
            Self::Raid1 => 1,
            Self::Raid4 => 4,
            Self::Raid5 => 5,
            Self::Raid6 => 6,
            Self::Raid10 => 10,
        }
    }

    /// The level of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.code() == code)
    }

    /// Which losses it bears, for people: "the level bears the loss of ...".
    pub const fn bears_in_words(self) -> &'static str {
        match self {
            Self::Raid0 => "no member",
            Self::Raid1 => "all members but one",
            Self::Raid4 | Self::Raid5 => "one member",
            Self::Raid6 => "two members",
            Self::Raid10 => "one member of each pair",
        }
    }
}

/// As configurations and status say it.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raid{}", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_code_and_a_name_of_its_own() {
        for level in Level::ALL {
            assert_eq!(Level::from_code(level.code()), Some(level));
            assert_eq!(level.to_string(), format!("{level:?}").to_lowercase());
            assert_eq!(level.min_members() % level.members_step(), 0);
        }
        assert_eq!((0..=255).filter(|&code| Level::from_code(code).is_some()).count(), Level::ALL.len());
    }
}

//! Which cores reactors are pinned to.

/// Why reactors cannot have the cores that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// A core does not exist, or this process may not run on it.
    #[error("core {asked} is not among the cores that this process may use: {}. Choose from these", list(.available))]
    Missing {
        /// The core.
        asked: usize,
        /// What there is.
        available: Vec<usize>,
    },
    /// A core was asked for twice.
    #[error("core {0} is named twice: each reactor needs a core of its own. Name it once")]
    Twice(usize),
    /// Fewer cores than reactors.
    #[error("{asked} reactors were asked for, but this process may use only {} cores: {}. Ask for fewer", .available.len(), list(.available))]
    TooFew {
        /// Reactors wanted.
        asked: usize,
        /// What there is.
        available: Vec<usize>,
    },
    /// No core was asked for.
    #[error("no core is named: at least one reactor is needed")]
    None,
    /// The system did not say.
    #[error("the system does not say which cores this process may use (sched_getaffinity failed)")]
    Unknown,
}

/// The cores that this process may use, ascending.
pub fn available_cores() -> Result<Vec<usize>, CoreError> {
    let ids = core_affinity::get_core_ids().ok_or(CoreError::Unknown)?;
    Ok(ids.into_iter().map(|core| core.id).collect())
}

/// Checks that reactors can have these cores.
pub fn check_cores(asked: &[usize]) -> Result<(), CoreError> {
    check(asked, &available_cores()?)
}

/// Cores for a number of reactors: the last ones, since the first serves most interrupts and everybody else.
pub fn choose_cores(count: usize) -> Result<Vec<usize>, CoreError> {
    choose(count, &available_cores()?)
}

/// A sensible number of reactors where nobody said one: one core is left to the control side and to clients on the same
/// machine, and at most four are taken.
pub fn default_cores() -> Result<Vec<usize>, CoreError> {
    let available = available_cores()?;
    choose(default_count(available.len()), &available)
}

fn default_count(available: usize) -> usize {
    available.saturating_sub(1).clamp(1, 4)
}

fn check(asked: &[usize], available: &[usize]) -> Result<(), CoreError> {
    if asked.is_empty() {
        return Err(CoreError::None);
    }
    for (place, &core) in asked.iter().enumerate() {
        if !available.contains(&core) {
            return Err(CoreError::Missing { asked: core, available: available.to_vec() });
        }
        if asked[..place].contains(&core) {
            return Err(CoreError::Twice(core));
        }
    }
    Ok(())
}

fn choose(count: usize, available: &[usize]) -> Result<Vec<usize>, CoreError> {
    if count == 0 {
        return Err(CoreError::None);
    }
    let first = available
        .len()
        .checked_sub(count)
        .ok_or_else(|| CoreError::TooFew { asked: count, available: available.to_vec() })?;
    Ok(available[first..].to_vec())
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_what_there_is() {
        let available = [0, 2, 3];
        assert_eq!(check(&[3, 0], &available), Ok(()));
        let missing = check(&[0, 1], &available).expect_err("core 1 is not there");
        assert!(missing.to_string().contains("core 1") && missing.to_string().contains("0, 2, 3"));
        assert_eq!(check(&[2, 2], &available), Err(CoreError::Twice(2)));
        assert_eq!(check(&[], &available), Err(CoreError::None));
        assert_eq!(choose(2, &available), Ok(vec![2, 3]));
        let few = choose(4, &available).expect_err("there are three");
        assert!(few.to_string().contains("only 3 cores"));
        assert_eq!([1, 2, 3, 5, 64].map(default_count), [1, 1, 2, 4, 4]);
    }

    #[test]
    fn this_machine_has_the_cores_that_are_chosen_by_default() {
        let cores = default_cores().expect("a machine that runs tests has cores");
        assert_eq!(check_cores(&cores), Ok(()));
    }
}

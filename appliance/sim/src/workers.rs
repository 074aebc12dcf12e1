//! Runs that know nothing of each other, side by side: as many at once as there are cores.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Workers that are no more than they need to be: one where what runs says each event aloud.
pub(crate) fn count(aloud: bool) -> usize {
    if aloud { 1 } else { thread::available_parallelism().map_or(1, NonZero::get) }
}

/// Does `run` with each item, by so many workers, and hands the results to `take` as they come. What is under way when one
/// fails still ends; nothing is begun after it.
///
/// # Errors
/// What failed first.
///
/// # Panics
/// If a run does.
pub(crate) fn each<I, T>(
    items: I,
    workers: usize,
    run: impl Fn(I::Item) -> Result<T, String> + Sync,
    mut take: impl FnMut(T),
) -> Result<(), String>
where
    I: Iterator + Send,
    T: Send,
{
    let (items, has_failed) = (Mutex::new(items), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let mut failure = None;
    thread::scope(|scope| {
        let (items, has_failed, run) = (&items, &has_failed, &run);
        for _ in 0..workers {
            let sender = sender.clone();
            scope.spawn(move || {
                let _panics = FailsOnPanic(has_failed);
                while !has_failed.load(Ordering::Relaxed)
                    && let Some(item) = next(items)
                {
                    let result = run(item);
                    has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send(result).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for result in receiver {
            match result {
                Ok(result) => take(result),
                Err(error) => failure = failure.take().or(Some(error)),
            }
        }
    });
    failure.map_or(Ok(()), Err)
}

fn next<I: Iterator>(items: &Mutex<I>) -> Option<I::Item> {
    items.lock().unwrap_or_else(PoisonError::into_inner).next()
}

// A run that panics stops the others too.
struct FailsOnPanic<'a>(&'a AtomicBool);

impl Drop for FailsOnPanic<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_its_turn_once() {
        for workers in [1, 2, 5] {
            let mut taken = Vec::new();
            each(0..100, workers, |item| Ok(item * 2), |double| taken.push(double)).expect("none fails");
            taken.sort_unstable();
            assert_eq!(taken, (0..100).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let mut taken = 0;
        let run = |item| if item == 3 { Err("three".to_owned()) } else { Ok(()) };
        assert_eq!(each(0.., 2, run, |()| taken += 1), Err("three".to_owned()));
        assert!(taken >= 2);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_stops_all() {
        let run = |item: u64| if item == 3 { panic!("three") } else { Ok(()) };
        let _ = each(0.., 2, run, |()| ());
    }
}

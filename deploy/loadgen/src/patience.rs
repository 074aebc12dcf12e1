//! Waiting for a target that is starting, with a bound. It tells what may pass from what will not.

use core::time::Duration;
use std::time::Instant;

use crate::error::HostError;
use crate::limits::{RECONNECT_PAUSE, RECONNECT_TIMEOUT};

/// Tries to connect to a target that may still be starting, for at most [`RECONNECT_TIMEOUT`]; says how long that took.
///
/// # Errors
/// The last error: the target does not come, or says what waiting cannot change.
pub fn patiently<T>(mut connect: impl FnMut() -> Result<T, HostError>) -> Result<(T, Duration), HostError> {
    let started = Instant::now();
    loop {
        match connect() {
            Ok(connected) => return Ok((connected, started.elapsed())),
            Err(error) if started.elapsed() < RECONNECT_TIMEOUT && may_pass(&error) => {
                std::thread::sleep(RECONNECT_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether waiting may help: nobody there yet, or a refusal that a host may retry.
const fn may_pass(error: &HostError) -> bool {
    match error {
        HostError::Refused { status, .. } => !status.is_final(),
        error => error.is_loss(),
    }
}

#[cfg(test)]
mod tests {
    use nvme::status::Status;

    use super::*;

    const BUSY: Status = Status::CONNECT_CONTROLLER_BUSY;

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_told_at_once() {
        let refused = |status| HostError::Refused { command: "Connect", status };
        let mut attempts = 0;
        let connected = patiently(|| {
            attempts += 1;
            match attempts {
                1 => Err(HostError::closed()),
                2 => Err(refused(BUSY)),
                _ => Ok(attempts),
            }
        });
        let (connected, after) = connected.expect("the third attempt");
        assert_eq!(connected, 3);
        assert!(after >= 2 * RECONNECT_PAUSE);
        for error in [refused(BUSY.do_not_retry()), HostError::Senseless("nonsense")] {
            let mut error = Some(error);
            let told = patiently(|| Err::<(), _>(error.take().expect("asked only once")));
            assert!(told.is_err());
        }
    }
}

//! What happened in the engine, in words for the log: with the names that the configuration has.

use engine::command::Event;

use super::report::Fixed;

/// Tells news to the log.
pub(super) fn to_log(fixed: &Fixed) -> impl Fn(Event) + Send + 'static {
    let arrays: Vec<String> = fixed.maps.iter().map(|map| map.name.clone()).collect();
    move |event| match event {
        Event::Excluded { array, members, copies, epoch } => {
            let array = &arrays[array.index()];
            for slot in bits(members) {
                tracing::warn!(array, member = slot, epoch, "a member was excluded");
            }
            for copy in bits(copies) {
                tracing::warn!(array, log_copy = copy, epoch, "a log copy was excluded");
            }
        }
        Event::Lost { count } => tracing::warn!(count, "news came faster than they could be told"),
    }
}

fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).filter(move |at| mask & 1 << at != 0)
}

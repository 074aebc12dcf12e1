//! Capabilities that the appliance keeps while it serves, and the dropping of all others. It asks for none and gains none.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// What is kept, if it was there:
/// - the network's: connections of this machine are ended from outside their owner (`SOCK_DESTROY`);
/// - locked memory: buffers that devices reach, and keys;
/// - files of other owners: drives and sockets lie in folders of whoever set the machine up, and are opened and removed
///   while serving. Which files these are is limited by the rules for files, not by ownership.
const KEPT: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::NET_ADMIN, "net_admin"),
    (CapabilitySet::IPC_LOCK, "ipc_lock"),
    (CapabilitySet::DAC_OVERRIDE, "dac_override"),
];

/// Drops all other capabilities of this thread, for good; says which are left.
pub(super) fn drop_unneeded() -> io::Result<Vec<&'static str>> {
    // No program that is started, and none is, can give more than there is.
    set_no_new_privs(true)?;
    let kept = KEPT.iter().fold(CapabilitySet::empty(), |kept, (one, _)| kept | *one);
    let permitted = capabilities(None)?.permitted & kept;
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() })?;
    Ok(KEPT.iter().filter(|(one, _)| permitted.contains(*one)).map(|(_, name)| *name).collect())
}

//! What the kernel tells of mediated devices, until a parent of theirs is gone.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use vdpa::mdev::{Change, Heard, Uevents};

use crate::Done;

/// One array of what changed, in its order.
pub(crate) fn until_gone(parent: &str) -> Done {
    let events = Uevents::open()?;
    println!("@tell listening");
    let mut heard = Vec::new();
    loop {
        match events.next()? {
            Heard::Lost => return Err("something was told that could not be kept".into()),
            Heard::Nothing => wait(&events)?,
            Heard::Event(event) => {
                let Some(change) = event.change() else {
                    continue;
                };
                heard.push(match &change {
                    Change::Made { uuid, parent } => json!(["made", uuid.to_string(), parent]),
                    Change::Removed { uuid, parent } => {
                        json!(["removed", uuid.to_string(), parent])
                    }
                    Change::ParentCame { parent } => json!(["came", parent]),
                    Change::ParentWent { parent } => json!(["went", parent]),
                    other => return Err(format!("{other:?} is new here").into()),
                });
                if matches!(change, Change::ParentWent { parent: gone } if gone == parent) {
                    println!("{}", json!(heard));
                    return Ok(());
                }
            }
        }
    }
}

fn wait(events: &Uevents) -> Done {
    let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

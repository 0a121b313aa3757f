//! `null`: frames go nowhere, and none come.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Lane, Port, Room};
use crate::frames::FrameBatch;

/// Takes everything, as fast as it comes.
pub struct Null;

impl Port for Null {
    fn lane(&self, _pair: u16) -> Box<dyn Lane> {
        Box::new(Self)
    }

    fn changed(&self) {}
}

impl Lane for Null {
    fn room(&mut self) -> Room {
        Room::Yes
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        batch.clear();
        batch
    }

    fn receive(&mut self, _take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        false
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn discard(&mut self) -> u64 {
        0
    }
}

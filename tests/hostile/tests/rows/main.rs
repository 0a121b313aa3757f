//! Every row of `docs/hostile-inputs.md` that can be run here, from the table of `vdpa_hostile`.

mod addresses;
mod block;
mod chains;
mod config;
mod dma;
mod fetches;
mod function;
mod indirect;
mod memory;
mod messages;
mod network;
mod packed;
mod parent;
mod partings;
mod peer;
mod rates;
mod registers;
mod removal;
mod setup;
mod shared;
mod split;
mod state;

use std::process::ExitCode;

fn main() -> ExitCode {
    vdpa_hostile::suite::run(&[
        chains::ROWS,
        addresses::ROWS,
        indirect::ROWS,
        split::ROWS,
        packed::ROWS,
        fetches::ROWS,
        setup::ROWS,
        state::ROWS,
        config::ROWS,
        network::ROWS,
        block::ROWS,
        rates::ROWS,
        peer::ROWS,
        parent::ROWS,
        dma::ROWS,
        memory::ROWS,
        messages::ROWS,
        shared::ROWS,
        partings::ROWS,
        registers::ROWS,
        removal::ROWS,
    ])
}

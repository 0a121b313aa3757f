//! Every row of `docs/hostile-inputs.md` that can be run here, from the table of `vdpa_hostile`.

mod chains;

use std::process::ExitCode;

fn main() -> ExitCode {
    vdpa_hostile::suite::run(&[chains::ROWS])
}

//! `vdpactl mdev create`, `start` and `remove`: which devices there are, changed.

use serde::Serialize;
use vdpa::mdev::{Definition, Host, Making, Mediated, Uuid};

use crate::failure::{Failure, Verdict};
use crate::mdev::failed;
use crate::mdev::list::Row;
use crate::output::Output;

#[derive(Serialize)]
struct Removed {
    removed: String,
}

/// `create TYPE [UUID]`.
pub(super) fn create(
    host: &Host,
    kind: &str,
    parent: Option<&str>,
    uuid: Uuid,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let kernel = host.kernel().map_err(failed)?;
    let made = Making::new(host, &*kernel).create(kind, parent, uuid);
    tell(&made.map_err(failed)?, None, output)
}

/// `start UUID`.
pub(super) fn start(
    host: &Host,
    definition: &Definition,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let kernel = host.kernel().map_err(failed)?;
    let made = Making::new(host, &*kernel).start(definition);
    tell(&made.map_err(failed)?, Some(definition), output)
}

/// `remove UUID`.
pub(super) fn remove(host: &Host, uuid: Uuid, output: &mut Output) -> Result<Verdict, Failure> {
    let kernel = host.kernel().map_err(failed)?;
    Making::new(host, &*kernel).remove(uuid).map_err(failed)?;
    output.say(&format!("{uuid} is removed"))?;
    output.object(&Removed {
        removed: uuid.to_string(),
    })?;
    Ok(Verdict::Well)
}

fn tell(
    made: &Mediated,
    definition: Option<&Definition>,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let uuid = made.uuid;
    let name = output.paint().name(uuid.to_string());
    output.say(&format!("{name} is made: vdpactl dev show mdev:{uuid}"))?;
    output.object(&Row::active(made, definition))?;
    Ok(Verdict::Well)
}

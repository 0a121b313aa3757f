//! `vdpactl mdev types --of DEVICE`: which slices a network device can be shared in.

use serde::Serialize;
use vdpa::core::DeviceSpec;
use vdpa::mdev::slice::{SliceType, Slicer, Uplink, UplinkConfig};

use crate::failure::{Failure, Verdict};
use crate::output::Output;

#[derive(Serialize)]
struct Report<'r> {
    of: &'r str,
    device: &'r str,
    mtu: u16,
    queue_pairs: u16,
    types: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    id: String,
    queue_pairs: u16,
    available_instances: u16,
}

impl From<SliceType> for Row {
    fn from(kind: SliceType) -> Self {
        Self {
            id: kind.name,
            queue_pairs: kind.queue_pairs,
            available_instances: kind.available_instances,
        }
    }
}

/// Lists them.
pub(super) fn types(of: &str, output: &mut Output) -> Result<Verdict, Failure> {
    let failed = |e: vdpa::Error| Failure::of(e.kind(), e);
    let spec = DeviceSpec::parse(of).map_err(Failure::input)?;
    if spec.parent() == "mdev" && spec.what() == Slicer::WHAT {
        let what = spec.what_value();
        let why = "a device to share: a slice sends from its own address alone, so name its device";
        return Err(Failure::input(what.malformed(why)));
    }
    let device = vdpa::open(of).map_err(Failure::input)?;
    let uplink = Uplink::open(device, UplinkConfig::default()).map_err(failed)?;
    let types: Vec<Row> = uplink.types().into_iter().map(Row::from).collect();
    let paint = output.paint();
    output.say(&paint.heading(format!("{:<8}  {:<5}  left", "type", "pairs")))?;
    for row in &types {
        let line = format!(
            "{:<8}  {:<5}  {}",
            row.id, row.queue_pairs, row.available_instances
        );
        let (id, rest) = line.split_at(row.id.len());
        output.say(&format!("{}{rest}", paint.name(id)))?;
    }
    output.object(&Report {
        of,
        device: uplink.name(),
        mtu: uplink.mtu(),
        queue_pairs: uplink.limit(),
        types,
    })?;
    Ok(Verdict::Well)
}

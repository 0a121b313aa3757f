//! Devices of ours behind our vhost-user end.

use vdpa_core::{Device, Registry};
use vdpa_export::vhost_user::{Notice, Options, Server, Stop};

/// Serves a device of the simulator's on `socket` until told to end.
pub(crate) fn child(socket: &str, spec: &str) -> Result<(), String> {
    let mut registry = Registry::new();
    registry.add(std::sync::Arc::new(vdpa_sim::SimMgmt::new()));
    let device = registry.open(spec).map_err(|e| e.to_string())?;
    serve(device, socket, |_| "unknown".to_owned())
}

/// Serves a device on `socket`, and answers each line of stdin with what `answer` makes of it, until there are no more.
pub(crate) fn serve(
    device: Device,
    socket: &str,
    answer: impl FnMut(&[&str]) -> String,
) -> Result<(), String> {
    let told = Options::default().observe(|notice| {
        if let Notice::CutOff { .. } = notice {
            eprintln!("ours: {notice}");
        }
    });
    let serving = Server::new(device, told)
        .bind(socket)
        .map_err(|e| e.to_string())?;
    let stop = Stop::new().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serving.run(&stop).map(drop).map_err(|e| e.to_string()));
        super::child::serve(answer);
        stop.set();
        server
            .join()
            .unwrap_or_else(|_| Err("the server panicked".to_owned()))
    })
}

//! A network card in a process of its own, in front of a driver in another: what a VMM's or a tool's author does to serve
//! a device by vhost-user, and what his driver sees of it.
//!
//! `vdpactl serve` is this with a command line. Here the front end is a thread that says hello and leaves, in place of QEMU.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use vdpa::core::{DeviceType, Features};
use vdpa::export::vhost_user::{Notice, Options, Server, Stop};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Whatever a device string names: the card of a machine by vfio:, a simulated one here.
    let device = vdpa::open("sim:net,mac=52:54:00:00:00:01,port=loopback")?;
    println!("serving    {}", device.info().name);

    // What happens is told as it does. A front end that misbehaves is cut off, which is told too, and the next one is served.
    let options = Options::default().observe(|notice| match notice {
        Notice::CutOff { why } => println!("told       cut off: {why}"),
        notice => println!("told       {notice}"),
    });

    let path = std::env::temp_dir().join(format!("vdpa-example-{}.sock", std::process::id()));
    let serving = Server::new(device, options).bind(&path)?;

    // A server is a thread that sleeps while nothing passes the socket: packets do not.
    let stop = Stop::new()?;
    let ended = thread::scope(|scope| {
        let server = scope.spawn(|| serving.run(&stop));
        let offered = front_end(&path);
        // As a signal handler would: the front end is let go of, and the device is reset.
        stop.set();
        (server.join(), offered)
    });
    let (Ok(ended), offered) = ended else {
        return Err("the server panicked".into());
    };
    println!("offered    {}", offered?.display(DeviceType::Net));

    // The device comes back, to be served again or driven here.
    let device = ended?.device;
    println!("back       {}", device.info().name);
    assert!(!path.exists());
    Ok(())
}

/// Asks what the device offers: one message of the protocol, which QEMU's docs/interop/vhost-user.rst describes.
fn front_end(path: &Path) -> std::io::Result<Features> {
    const GET_FEATURES: u32 = 1;
    const VERSION: u32 = 1;

    let mut socket = UnixStream::connect(path)?;
    let header = [GET_FEATURES, VERSION, 0].map(u32::to_ne_bytes).concat();
    socket.write_all(&header)?;
    let mut answer = [0; 20];
    socket.read_exact(&mut answer)?;
    let [.., a, b, c, d, e, f, g, h] = answer;
    let bits = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    // Two are not virtio's but vhost's own: a log of writes, and that there are protocol features.
    let own = 1 << 26 | 1 << 30;
    Ok(Features::from_u64(bits & !own))
}

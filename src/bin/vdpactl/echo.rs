//! `vdpactl echo`: a host behind a network device, which answers whoever asks.

mod report;
mod service;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use smoltcp::wire::IpCidr;
use vdpa::Deadline;
use vdpa::core::{Event, Events, Features};
use vdpa::net::smoltcp::Phy;
use vdpa::net::{NetDriver, Setup};

use self::report::{Ready, Totals};
use self::service::Service;
use crate::failure::{Failure, Verdict};
use crate::options::Echo;
use crate::output::Output;
use crate::signals::Signals;

/// The longest sleep: whatever was missed is found then.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a busy loop looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Answers until a signal, the time given, or the end of the device.
pub(crate) fn run(options: &Echo, output: &mut Output) -> Result<Verdict, Failure> {
    let addresses = addresses(options)?;
    // Before the device's threads begin: they inherit it.
    let signals = Signals::block()?;
    let setup = Setup {
        ring: options.ring,
        pairs: options.pairs,
        ask: match options.no_offloads {
            true => Features::NONE,
            false => Phy::ASK,
        },
        ..Setup::default()
    };
    let device = vdpa::open(&options.spec).map_err(Failure::input)?;
    let driver = NetDriver::start(device, &setup).map_err(Failure::setup)?;
    let events = driver.control().events()?;
    let phy = Phy::new(driver)?;
    let mut service = Service::new(phy, &addresses, options.port, options.connections);

    let ready = Ready::of(options, &service);
    output.object(&ready)?;
    ready.tell(output)?;
    output.flush()?;

    let served = serve(&mut service, options, &signals, &events, output);
    let totals = Totals::of("stopped", &service);
    output.object(&totals)?;
    totals.tell(output)?;
    output.flush()?;
    served?;
    service.into_phy().into_driver().stop()?;
    Ok(Verdict::Well)
}

fn addresses(options: &Echo) -> Result<Vec<IpCidr>, Failure> {
    // As many as the stack is built for, less the link-local one that it has by itself.
    const MOST: usize = 7;

    if options.ip.len() > MOST {
        let count = options.ip.len();
        return Err(Failure::input(anyhow!(
            "{count} addresses: at most {MOST} can be given with --ip"
        )));
    }
    Ok(options.ip.clone())
}

fn serve(
    service: &mut Service,
    options: &Echo,
    signals: &Signals,
    events: &Events,
    output: &mut Output,
) -> Result<(), Failure> {
    let began = Instant::now();
    let every = Duration::from_secs_f64(options.every);
    let end = options
        .seconds
        .map(|seconds| began + Duration::from_secs_f64(seconds));
    let (mut told, mut looked) = (began, began);
    loop {
        let delay = service.step().min(PATIENCE);
        let mut by = Instant::now() + delay;
        by = end.map_or(by, |end| by.min(end));
        if !every.is_zero() {
            by = by.min(told + every);
        }
        let also = [signals.as_fd(), events.as_fd()];
        service.wait(&also, Deadline::at(by))?;

        let now = Instant::now();
        if delay > LOOK || now - looked > LOOK {
            looked = now;
            if signals.came()? || end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            while let Some(event) = events.try_next() {
                judge(&options.spec, &event)?;
            }
        }
        if !every.is_zero() && now - told >= every {
            told = now;
            let totals = Totals::of("statistics", service);
            output.object(&totals)?;
            totals.tell(output)?;
            output.flush()?;
        }
    }
}

/// Whether the device can still be used.
fn judge(spec: &str, event: &Event) -> Result<(), Failure> {
    let why = match event {
        Event::NeedsReset { why, .. } => format!("needs a reset: {why}"),
        Event::Broken { why } => format!("is broken: {why}"),
        Event::Gone => "is gone".to_owned(),
        _ => return Ok(()),
    };
    Err(anyhow!("{spec}: the device {why}").into())
}

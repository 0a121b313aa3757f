//! Slices of one card whose wire gives back what is sent.

use std::time::Duration;

use serde_json::json;
use vdpa::Deadline;
use vdpa::net::{NetDriver, NetError, Setup};

use crate::Done;

/// How many slices share the card.
const SLICES: u8 = 4;
/// How long a frame may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// For experiments, IEEE 802.
const TYPE: [u8; 2] = [0x88, 0xb5];

/// In each round every slice sends one frame to the next one and one to the wire, which comes back to it alone; then one
/// to everybody, which comes to each once.
pub(crate) fn exchange(device: &str, rounds: u32) -> Done {
    let registry = vdpa::registry();
    let mut cards = Vec::new();
    for number in 0..SLICES {
        let of = device.replace(',', ";");
        let spec = format!("mdev:slice,of={of},mac=02:00:00:00:51:{number:02x}");
        cards.push(NetDriver::start(registry.open(&spec)?, &Setup::default())?);
    }
    let (mut between, mut back, mut all) = (0, 0, 0);
    for round in 0..rounds {
        for number in 0..SLICES {
            let next = (number + 1) % SLICES;
            let sibling = frame(mac(next), mac(number), round);
            card(&mut cards, number)?.send(0, [&sibling])?;
            between += expect(&mut cards, next, &sibling)?;
            let wire = frame([0x02, 0xee, 0, 0, 0, 1], mac(number), round);
            card(&mut cards, number)?.send(0, [&wire])?;
            back += expect(&mut cards, number, &wire)?;
            let everybody = frame([0xff; 6], mac(number), round);
            card(&mut cards, number)?.send(0, [&everybody])?;
            for other in 0..SLICES {
                all += expect(&mut cards, other, &everybody)?;
            }
        }
    }
    for card in cards {
        card.stop()?;
    }
    println!(
        "{}",
        json!({ "slices": SLICES, "between": between, "back": back, "all": all })
    );
    Ok(())
}

fn mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x51, number]
}

/// Every length in its turn.
fn frame(to: [u8; 6], from: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = [&to[..], &from, &TYPE, &number.to_be_bytes()].concat();
    let len = 60 + number as usize * 37 % 1455;
    frame.extend((frame.len()..len).map(|at| (at as u32 ^ number) as u8));
    frame
}

fn card(cards: &mut [NetDriver], number: u8) -> Result<&mut NetDriver, NetError> {
    let count = cards.len() as u16;
    let none = NetError::NoPair {
        pair: number.into(),
        count,
    };
    cards.get_mut(usize::from(number)).ok_or(none)
}

/// Waits until the slice has this frame, and nothing else of ours.
fn expect(
    cards: &mut [NetDriver],
    number: u8,
    frame: &[u8],
) -> Result<u32, Box<dyn std::error::Error>> {
    let by = Deadline::after(PATIENCE);
    let card = card(cards, number)?;
    let (mut came, mut other) = (0, None);
    while came == 0 {
        card.receive(0, |received| {
            let mut bytes = Vec::new();
            received.copy_to(&mut bytes);
            // Whatever else is on the wire is of another type.
            if bytes == frame {
                came += 1;
            } else if bytes.get(12..14) == Some(&TYPE) {
                other = Some(bytes);
            }
        })?;
        if let Some(other) = other {
            return Err(format!("slice {number} received {other:02x?}, not {frame:02x?}").into());
        }
        if came == 0 && !card.wait(0, by)? {
            return Err(format!("slice {number}: {frame:02x?} did not come").into());
        }
    }
    match came {
        1 => Ok(1),
        _ => Err(format!("slice {number} received {frame:02x?} {came} times").into()),
    }
}

/*
 * Event suppression of the split ring, both directions at once, on a machine that holds stores back.
 *
 * What stands for what, in vdpa-ring/src:
 *
 *   driver                an owner of `SplitDriver` (split/driver.rs):
 *     publish               `add` of one or more chains, then `publish`; a kick where it says so
 *     look, take            `take_used` (split/driver/take.rs), of some or of all that is there
 *     arm                   `arm`; false allows to sleep until a call
 *     disarm                `disarm`
 *   device                an owner of `SplitDevice` (split/device.rs):
 *     look, take            `take`
 *     publish               `commit` or `commit_in_order`, whose end is the private `publish`; a call where it says so
 *     arm                   `arm`; false allows to sleep until a kick
 *     disarm                `disarm`
 *   stores                the store buffer of one side (stores.pml)
 *   fence                 `RingMem::full`
 *   need_event            `need_event` (event.rs), with indices of BITS bits instead of 16
 *
 * Three forms:
 *
 *   (none)                The driver publishes when it likes, as much as it likes; the device takes, arms, disarms and
 *                         sleeps in any order that the contract of `arm` allows.
 *   CALLS                 The same with device and driver in each other's place.
 *   LOOP                  Both directions at once; the owners follow the loop that they are meant to.
 *
 * Checked: nobody sleeps while the peer has published something for it, has done with that publication, and left no
 * notification (monitor, in stores.pml); no side sees more than fits the ring; the store buffers are deep enough.
 * With LOOP also that nothing comes to a stop, and (non-progress cycles) that chains come round for ever.
 *
 * Options (-D): EVENT_IDX; SIZE, BITS. Broken on purpose, each of which must be found:
 *   NO_FENCE_PRODUCER     no fence in `publish` (NO_FENCE_DRIVER_PUBLISH, NO_FENCE_DEVICE_COMMIT: of that side alone)
 *   NO_FENCE_CONSUMER     no fence in `arm` (NO_FENCE_DRIVER_ARM, NO_FENCE_DEVICE_ARM: of that side alone)
 *   NO_FENCE              none of them
 *   NO_SECOND_LOOK        `arm` asks and does not look again
 *   NAIVE_EVENT_TEST      indices compared as if they did not come round (with EVENT_IDX)
 *   STALE_EVENT           `arm` leaves the event where the first one put it (with EVENT_IDX)
 */

#ifndef BITS
#define BITS 3
#endif
/* At most half of what an index can count, as 32768 of 65536. */
#ifndef SIZE
#define SIZE 4
#endif
#define MASK ((1 << BITS) - 1)
#define BEYOND(from, to) (((to) - (from)) & MASK)

/* The words of a side's own area. */
#define IDX 0
#define EVENT 1
#define FLAGS 2
#define WORD(side, word) ((side) * 3 + (word))
#define WORDS 6
#define SILENT 1

/* A disarm and an arm: two events and the flags. */
#define DEPTH 3

/* What each side keeps to itself: the index it has shown, and how far it has taken the peer's. */
byte shown[2], taken[2];

#define LEFT(sleeper) (shown[1 - sleeper] != taken[sleeper])

#include "stores.pml"

inline need_event(answer, event, new, old) {
#ifdef NAIVE_EVENT_TEST
	answer = (old <= event && event < new)
#else
	answer = (((new - event - 1) & MASK) < ((new - old) & MASK))
#endif
}

inline publish(by, fenced) {
	atomic {
		publishing[me] = true;
		old = shown[me];
		shown[me] = (old + by) & MASK;
		store(me, WORD(me, IDX), shown[me])
	}
	fence(me, fenced);
	d_step {
#ifdef EVENT_IDX
		seen = mem[WORD(1 - me, EVENT)];
		need_event(wanted, seen, shown[me], old)
#else
		wanted = (mem[WORD(1 - me, FLAGS)] != SILENT)
#endif
		;
		old = 0;
		seen = 0
	}
	tell(1 - me)
}

inline arm(fenced) {
	atomic {
		may_sleep = false;
#ifdef EVENT_IDX
		if
#ifdef STALE_EVENT
		:: armed != UNKNOWN
#endif
		:: else -> store(me, WORD(me, EVENT), taken[me])
		fi;
#endif
		if
		:: armed != ARMED -> store(me, WORD(me, FLAGS), 0)
		:: else
		fi;
		armed = ARMED
	}
	fence(me, fenced);
#ifdef NO_SECOND_LOOK
	may_sleep = true
#else
	may_sleep = (mem[WORD(1 - me, IDX)] == taken[me])
#endif
}

inline disarm() {
	atomic {
		may_sleep = false;
		if
		:: armed == DISARMED
		:: else ->
			armed = DISARMED;
#ifdef EVENT_IDX
			store(me, WORD(me, EVENT), (taken[me] - 1) & MASK)
#else
			store(me, WORD(me, FLAGS), SILENT)
#endif
		fi
	}
}

/* One load of the peer's index: how many are to be taken. */
inline look(room, pending) {
	d_step {
		may_sleep = false;
		pending = BEYOND(taken[me], mem[WORD(1 - me, IDX)]);
		assert(pending <= room)
	}
}

/* Some of them or all. */
inline take(pending) {
	atomic {
		do
		:: pending > 0 -> taken[me] = (taken[me] + 1) & MASK; pending--
		:: pending = 0; break
		od
	}
}

#define ME(side) byte me = side, armed, pending, by, old, seen; bool wanted, may_sleep

#ifndef LOOP

/* The peer gives back at once what it takes: as much as it can ever be ahead. */
#define ROOM (SIZE - BEYOND(taken[1 - me], shown[me]))

inline producer(fenced) {
	do
	:: ROOM > 0 ->
		atomic {
			by = 1;
			do
			:: by < ROOM -> by++
			:: break
			od
		}
		publish(by, fenced)
	od
}

inline consumer(fenced) {
	do
	:: look(SIZE, pending); take(pending)
	:: arm(fenced)
	:: disarm()
	:: may_sleep -> sleep(me)
	od
}

#ifdef CALLS
proctype driver() { ME(DRIVER); consumer(DRIVER_ARM_FENCED) }
proctype device() { ME(DEVICE); producer(DEVICE_COMMIT_FENCED) }
#else
proctype driver() { ME(DRIVER); producer(DRIVER_PUBLISH_FENCED) }
proctype device() { ME(DEVICE); consumer(DEVICE_ARM_FENCED) }
#endif

#else

/* What the driver may still show; what the device has not given back. */
#define ROOM (SIZE - BEYOND(taken[DRIVER], shown[DRIVER]))
#define OPEN BEYOND(shown[DEVICE], taken[DEVICE])

/* Sends as long as there is room, then takes back what is there; sleeps if more is to come. */
proctype driver() {
	ME(DRIVER);
	do
	:: disarm();
		if
		:: ROOM > 0 -> publish(ROOM, DRIVER_PUBLISH_FENCED)
		:: ROOM > 1 -> publish(1, DRIVER_PUBLISH_FENCED)
		:: ROOM == 0
		fi;
		look(SIZE - ROOM, pending);
		do
		:: pending > 0 ->
progress:		d_step { taken[me] = (taken[me] + 1) & MASK; pending-- }
		:: pending == 0 -> break
		od;
		arm(DRIVER_ARM_FENCED);
		if
		:: may_sleep && ROOM < SIZE -> sleep(me)
		:: else
		fi
	od
}

/* Takes what is there and gives it back; sleeps if there is nothing. */
proctype device() {
	ME(DEVICE);
	do
	:: disarm();
		look(SIZE - OPEN, pending);
		do
		:: pending > 0 -> d_step { taken[me] = (taken[me] + 1) & MASK; pending-- }
		:: pending == 0 -> break
		od;
		if
		:: OPEN > 0 -> publish(OPEN, DEVICE_COMMIT_FENCED)
		:: OPEN > 1 -> publish(1, DEVICE_COMMIT_FENCED)
		:: OPEN == 0
		fi;
		if
		:: OPEN == 0 ->
			arm(DEVICE_ARM_FENCED);
			if
			:: may_sleep -> sleep(me)
			:: else
			fi
		:: else
		fi
	od
}

#endif

init {
	atomic { run stores(DRIVER); run stores(DEVICE); run driver(); run device() }
}

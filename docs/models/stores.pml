/*
 * What the models share: memory behind store buffers, notifications, and what must never be.
 *
 * A store goes to the end of its side's buffer and from there to memory in order, at any later time (TSO). A load sees
 * the side's own latest store first. `fence` waits for an empty buffer: the full fence between a store and a later load.
 *
 * What a side does between two loads or fences is one step: nobody sees its stores before they leave the buffer, which
 * they may do at any time after.
 */

#define DRIVER 0
#define DEVICE 1

/* `armed` of each half: unknown at start. */
#define UNKNOWN 0
#define ARMED 1
#define DISARMED 2

#ifdef NO_FENCE
#define NO_FENCE_PRODUCER
#define NO_FENCE_CONSUMER
#endif
#ifdef NO_FENCE_PRODUCER
#define NO_FENCE_DRIVER_PUBLISH
#define NO_FENCE_DEVICE_COMMIT
#endif
#ifdef NO_FENCE_CONSUMER
#define NO_FENCE_DRIVER_ARM
#define NO_FENCE_DEVICE_ARM
#endif
#ifdef NO_FENCE_DRIVER_PUBLISH
#define DRIVER_PUBLISH_FENCED false
#else
#define DRIVER_PUBLISH_FENCED true
#endif
#ifdef NO_FENCE_DEVICE_COMMIT
#define DEVICE_COMMIT_FENCED false
#else
#define DEVICE_COMMIT_FENCED true
#endif
#ifdef NO_FENCE_DRIVER_ARM
#define DRIVER_ARM_FENCED false
#else
#define DRIVER_ARM_FENCED true
#endif
#ifdef NO_FENCE_DEVICE_ARM
#define DEVICE_ARM_FENCED false
#else
#define DEVICE_ARM_FENCED true
#endif

/* Notifications: at least one is there; the side waits for one; the side is between its store and its last word. */
bool notified[2], asleep[2], publishing[2];

byte mem[WORDS];
byte at_of[2 * DEPTH], value_of[2 * DEPTH], held[2];

/* With all fences no buffer is ever full, so that a deeper one would show nothing else. Without, the store waits. */
inline store(me, at, value) {
#if DRIVER_PUBLISH_FENCED && DEVICE_COMMIT_FENCED && DRIVER_ARM_FENCED && DEVICE_ARM_FENCED
	assert(held[me] < DEPTH);
#endif
	d_step {
		held[me] < DEPTH ->
		at_of[me * DEPTH + held[me]] = at;
		value_of[me * DEPTH + held[me]] = value;
		held[me]++
	}
}

inline fence(me, fenced) {
	!fenced || held[me] == 0
}

proctype stores(byte me) {
	byte i;
end:
	do
	:: d_step {
		held[me] > 0 ->
		mem[at_of[me * DEPTH]] = value_of[me * DEPTH];
		held[me]--;
		i = 0;
		do
		:: i < held[me] ->
			at_of[me * DEPTH + i] = at_of[me * DEPTH + i + 1];
			value_of[me * DEPTH + i] = value_of[me * DEPTH + i + 1];
			i++
		:: else -> break
		od;
		at_of[me * DEPTH + held[me]] = 0;
		value_of[me * DEPTH + held[me]] = 0;
		i = 0
	   }
	od
}

/* The end of a publication. */
inline tell(peer) {
	d_step {
		if
		:: wanted -> notified[peer] = true
		:: else
		fi;
		publishing[me] = false;
		wanted = false
	}
}

/* Both may sleep for good where nothing is left to do; owners in their LOOP always have something. */
inline sleep(me) {
	asleep[me] = true;
#ifndef LOOP
end_asleep:
#endif
	d_step { notified[me] -> notified[me] = false; asleep[me] = false; may_sleep = false }
}

/* Asleep, with something to take, and nobody is about to tell. */
#define LOST(sleeper) (asleep[sleeper] && !notified[sleeper] && !publishing[1 - sleeper] && LEFT(sleeper))

active proctype monitor() {
end:
	if
	:: d_step { LOST(DRIVER) -> assert(!LOST(DRIVER)) }
	:: d_step { LOST(DEVICE) -> assert(!LOST(DEVICE)) }
	fi
}

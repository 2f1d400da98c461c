//! What the host's failures are: for each code its HTTP status, its meaning, and the texts and
//! parameters that it comes with.
//!
//! Invariant: the host makes no failure but by a constructor that is declared here.

use std::fmt::Display;

use serde_json::Value;

use super::Failure;

/// A code of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The code.
    pub code: &'static str,
    /// The HTTP status of its failures.
    pub status: u16,
    /// What it means.
    pub meaning: &'static str,
    /// The names of the parameters that its failures may have.
    pub params: &'static [&'static str],
}

/// Declares codes, each with its status, its meaning, and the failures that the host makes with it:
/// a constructor, its text, and the parameters.
///
/// ```text
/// TIMER_LIMIT = "timer.limit", 500, "The actor has as many timers as it may." {
///     timer_limit(limit: usize) "an actor may have {limit} timers", "limit": limit;
/// }
/// ```
///
/// makes the constant `code::TIMER_LIMIT`, an entry of `code::ALL`, and
/// `Failure::timer_limit(limit)`.
macro_rules! failures {
    ($($name:ident = $code:literal, $status:literal, $meaning:literal {
        $($form:ident($($arg:ident: $type:ty),*) $text:literal $(, $param:literal: $value:expr)*;)*
    })*) => {
        /// The stable codes of the host.
        ///
        /// A code's meaning never changes; new codes may come. `docs/protocol.md` lists them from
        /// [`ALL`](code::ALL).
        pub mod code {
            use super::Declared;

            $(#[doc = $meaning] pub const $name: &str = $code;)*

            /// Every code of the host.
            pub const ALL: &[Declared] = &[$(Declared {
                code: $code,
                status: $status,
                meaning: $meaning,
                params: &[$($($param,)*)*],
            }),*];
        }

        impl Failure {
            $($(
                #[doc = concat!("`", $code, "`: ", $text)]
                pub fn $form($($arg: $type),*) -> Failure {
                    Failure::new($code)
                        .status($status)
                        .message(format!($text))
                        $(.param($param, $value))*
                }
            )*)*
        }
    };
}

failures! {
    FRAME_MALFORMED = "frame.malformed", 400, "The WebSocket frame is not JSON, or not a frame of the protocol." {
        frame_malformed(message: impl Display) "{message}";
        frame_malformed_at(path: &str, message: impl Display) "{path}: {message}", "path": path;
    }
    FRAME_TOO_LARGE = "frame.too-large", 413, "The WebSocket message is larger than the host accepts." {
        frame_too_large(limit: usize, found: impl Display) "expected a frame of at most {limit} bytes, found {found}", "limit": limit;
    }
    FRAME_NOT_UTF8 = "frame.not-utf8", 400, "The WebSocket message is not UTF-8 text." {
        frame_not_utf8(error: impl Display) "expected a frame of UTF-8 text: {error}";
    }
    FRAME_UNKNOWN_TYPE = "frame.unknown-type", 400, "The frame's `type` is none that a client may send." {
        frame_unknown_type(found: &str) "/type: expected rpc, rpc:cancel, state:sub, state:unsub, event:sub, event:unsub or auth, found {found:?}", "path": "/type";
    }
    RPC_DUPLICATE_ID = "rpc.duplicate-id", 409, "A call with this id is still running on the same connection." {
        rpc_duplicate_id(id: &str) "a call with the id `{id}` is still under way";
    }
    RPC_IN_FLIGHT_LIMIT = "rpc.in-flight-limit", 429, "The connection has too many calls that wait for a result." {
        rpc_in_flight_limit() "too many calls of this connection are under way";
    }
    ACTOR_UNKNOWN = "actor.unknown", 404, "No component serves an actor type of this name." {
        actor_unknown(actor: &str) "Unknown actor: {actor}", "actor": actor;
    }
    ACTOR_INVALID_ID = "actor.invalid-id", 400, "The actor id is empty, longer than 256 bytes, `.` or `..`." {
        actor_invalid_id(error: impl Display, max: usize) "{error}", "max": max;
        actor_invalid_stored_id(error: impl Display) "{error}";
        receiver_invalid() "the receiver of the message has no valid name or id";
    }
    ACTOR_MOVING = "actor.moving", 503, "The actor moves to another host; try again later." {
        actor_moving() "the actor is on its way to another host";
        actor_elsewhere() "the actor is at another host now";
    }
    ACTOR_LIMIT = "actor.limit", 503, "The host has as many actors in memory as it may; try again later." {
        actor_limit_of_memory(exhausted: impl Display, budget: &str) "{exhausted}", "budget": budget;
        actor_limit(retry_after_ms: u64) "the host has too many actors in memory", "retryAfterMs": retry_after_ms;
    }
    METHOD_UNKNOWN = "method.unknown", 404, "The actor type has no method of this name." {
        method_unknown(actor: &str, method: &str) "Unknown method: {method}", "actor": actor, "method": method;
    }
    INPUT_INVALID = "input.invalid", 400, "The input is not JSON or does not satisfy the method's schema." {
        input_invalid(method: &str, violations: impl Display, issues: Vec<Value>) "Validation failed for {method}: {violations}", "issues": issues;
        input_malformed(method: &str, error: impl Display) "Validation failed for {method}: /: {error}";
        input_not_json(detail: impl Display) "the input is not JSON: {detail}";
        input_too_large(method: &str, error: impl Display, limit: usize) "Validation failed for {method}: /: {error} (`state-memory-bytes`)", "limit": limit, "setting": "state-memory-bytes";
    }
    MAILBOX_FULL = "mailbox.full", 503, "The actor has too many calls waiting; try again later." {
        mailbox_full() "the actor has too many calls waiting";
    }
    CALL_DEADLOCK = "call.deadlock", 409, "The call would wait for itself, directly or through other actors." {
        call_deadlock(called: impl Display, caller: impl Display) "{called} waits for {caller}, which would wait for it";
    }
    CALL_KEY_REUSED = "call.key-reused", 422, "The idempotency key was used with another input before." {
        call_key_reused() "the idempotency key was used with another input before";
    }
    CALL_INTERRUPTED = "call.interrupted", 409, "A call with this idempotency key was begun and did not end; it is not run again." {
        call_interrupted() "a call with this idempotency key was begun and did not end";
    }
    CALL_CANCELLED = "call.cancelled", 409, "The caller has cancelled the call." {
        call_cancelled() "the caller has cancelled the call";
    }
    CALL_TIMEOUT = "call.timeout", 504, "The called actor did not answer in time." {
        call_timeout() "the called actor did not answer in time";
        call_not_sent(error: impl Display) "{error}";
    }
    CALL_DEPTH_LIMIT = "call.depth-limit", 500, "Calls between actors nest deeper than they may." {
        call_depth_limit(limit: u32) "calls of actors nest deeper than {limit}", "limit": limit;
    }
    CALL_LIMIT = "call.limit", 500, "The turn made more calls to other actors than it may." {
        call_limit(limit: usize) "one turn may make {limit} calls to other actors", "limit": limit;
    }
    CALL_LOST = "call.lost", 503, "The host that the call went to is gone, and nobody knows whether it ran; with an idempotency key it can be made again." {
        call_lost() "the host that the call went to is gone: it may have run, or not";
    }
    CALL_SLOW_CONSUMER = "call.slow-consumer", 409, "The caller does not read what the method streams to it." {
        call_slow_consumer() "the caller does not read what the method streams to it";
    }
    HANDLER_TRAPPED = "handler.trapped", 500, "The handler crashed; what it had staged is discarded." {
        handler_trapped() "the handler has crashed";
        guard_trapped() "the actor's guard crashed";
    }
    HANDLER_FAILED = "handler.failed", 500, "The handler failed without a code of the agreed shape." {
        guard_undecided() "the actor's guard did not decide";
        view_not_json(error: impl Display) "a view is not JSON that is taken: {error}";
    }
    TURN_DEADLINE = "turn.deadline", 504, "The turn took longer than it may." {
        turn_deadline(limit_ms: u64) "the turn took longer than {limit_ms} ms", "limitMs": limit_ms;
        work_deadline() "the host's work for the turn took longer than the turn may";
        guard_deadline() "the actor's guard takes longer than it may";
        guard_busy() "the actor's guard is busy for too long";
        migration_busy() "too many other states are being migrated";
    }
    TURN_MEMORY_LIMIT = "turn.memory-limit", 500, "The handler wanted more memory than it may have." {
        turn_memory_limit(which: &str) "the handler needs more memory than it may have", "which": which;
    }
    TURN_STACK_LIMIT = "turn.stack-limit", 500, "The handler's calls nest deeper than its stack allows." {
        turn_stack_limit() "the handler's recursion is too deep";
    }
    TURN_HOST_CALL_LIMIT = "turn.host-call-limit", 500, "The turn called the host more often than it may." {
        turn_host_call_limit(limit: u64) "the turn called the host more than {limit} times", "limit": limit;
    }
    TURN_EFFECTS_LIMIT = "turn.effects-limit", 500, "The turn staged more than it may." {
        turn_effects_limit(limit: usize) "the turn staged more than {limit} bytes", "limit": limit;
    }
    TURN_WORK_LIMIT = "turn.work-limit", 500, "The turn had the host do more work on its data than it may: operations on large arrays, or a schema of many parts for a large value." {
        turn_work_limit(limit: u64) "the turn had the host take more than {limit} steps on its data", "limit": limit;
    }
    OUTPUT_INVALID = "output.invalid", 500, "The method's result is not JSON or does not satisfy its schema." {
        output_invalid(method: &str) "{method} returned an invalid result";
        chunk_not_json(detail: impl Display) "a chunk is not JSON: {detail}";
    }
    STATE_INVALID = "state.invalid", 500, "The state that the turn leaves does not satisfy its schema." {
        state_invalid(violations: impl Display) "the turn would leave an invalid state: {violations}";
    }
    STATE_MALFORMED = "state.malformed", 500, "The handler staged something that is not JSON." {
        state_not_json(error: impl Display) "the state is not JSON: {error}";
        value_not_json(error: impl Display) "a value is not JSON: {error}";
        state_malformed_at(error: impl Display, pointer: String) "{error}", "pointer": pointer;
    }
    STATE_NO_SUCH_PLACE = "state.no-such-place", 500, "The handler named a place that the state does not have." {
        not_a_pointer(text: String) "`{text}` is not a JSON pointer", "pointer": text;
        state_no_such_place(error: impl Display, pointer: String) "{error}", "pointer": pointer;
    }
    STATE_NOT_A_STRING = "state.not-a-string", 500, "The handler appended text to a place that holds no string." {
        state_not_a_string(error: impl Display, pointer: String) "{error}", "pointer": pointer;
    }
    STATE_TOO_LARGE = "state.too-large", 500, "The state that the turn leaves is longer than it may be." {
        state_too_long(limit: usize) "the state is longer than {limit} bytes (`state-bytes`)", "limit": limit, "setting": "state-bytes";
        state_too_large(limit: usize) "the state takes more than {limit} bytes of memory (`state-memory-bytes`)", "limit": limit, "setting": "state-memory-bytes";
        values_too_large(limit: usize) "the operations hold values that take more than {limit} bytes of memory (`state-memory-bytes`)", "limit": limit, "setting": "state-memory-bytes";
    }
    STATE_READ_ONLY = "state.read-only", 500, "The handler tried to change the state where it may only read." {
        state_read_only() "a guard may only read";
    }
    EVENT_UNKNOWN = "event.unknown", 500, "The handler emitted an event that its manifest does not declare." {
        event_unknown(event: &str) "the manifest declares no event `{event}`", "event": event;
    }
    EVENT_INVALID = "event.invalid", 500, "The handler emitted a payload that the event's schema refuses." {
        event_invalid(event: &str, detail: impl Display) "the payload of `{event}` is invalid: {detail}", "event": event;
    }
    TIMER_UNKNOWN_METHOD = "timer.unknown-method", 500, "The handler set a timer for a method that it does not have." {
        timer_unknown_method(method: &str) "there is no method `{method}`", "method": method;
    }
    TIMER_INVALID_INPUT = "timer.invalid-input", 500, "The handler set a timer with an input that the method refuses." {
        timer_invalid_input(method: &str, detail: impl Display) "the input for `{method}` is invalid: {detail}", "method": method;
    }
    TIMER_INVALID_DELAY = "timer.invalid-delay", 500, "The handler set a timer with a delay outside the allowed range." {
        timer_invalid_delay(max_ms: u64) "expected a delay of at most {max_ms} ms, and an interval of at least 1 ms", "max": max_ms;
    }
    MESSAGE_LIMIT = "message.limit", 500, "The actor has sent as many messages as may be on their way." {
        message_limit(count: usize, limit: usize, limit_bytes: usize) "{count} messages of the actor have not reached their receivers", "limit": limit, "limitBytes": limit_bytes;
    }
    TIMER_LIMIT = "timer.limit", 500, "The actor has as many timers as it may." {
        timer_limit(limit: usize) "an actor may have {limit} timers", "limit": limit;
    }
    STATE_UNFIT = "state.unfit", 500, "The stored state does not fit the handler that serves the actor now, and is not migrated." {
        state_unfit() "the stored state does not fit the handler that serves the actor now";
        state_not_migrated(refusal: &str) "the stored state does not fit the handler that serves the actor now", "refusal": refusal;
        state_not_yet_fit() "the state is not yet that of the handler that serves the actor now";
    }
    STORE_UNAVAILABLE = "store.unavailable", 503, "The state could not be loaded or saved; try again later." {
        store_unavailable() "the store is not available";
        store_stopped() "the store takes nothing any more";
        store_damaged(error: impl Display) "the stored state is damaged: {error}";
        mail_out_of_order() "a message before this one is to be delivered again first";
        not_stored(error: impl Display) "{error}";
    }
    STORE_BUSY = "store.busy", 503, "On Spin: the database was busy with the writes of others for too long; `params.retryAfterMs` says when to try again." {
        store_busy(error: impl Display, retry_after_ms: u64) "{error}", "retryAfterMs": retry_after_ms;
    }
    HOST_MEMORY = "host.memory", 503, "The host has no memory left for this; try again later, after `params.retryAfterMs` where that is said." {
        host_memory(exhausted: impl Display, budget: &str) "{exhausted}", "budget": budget;
        host_memory_for_now(exhausted: impl Display, budget: &str, retry_after_ms: u64) "{exhausted}: try again in {retry_after_ms} ms", "budget": budget, "retryAfterMs": retry_after_ms;
        guest_memory() "the host has no memory for another instance of the handler";
    }
    HOST_CUT_OFF = "host.cut-off", 503, "The host cannot reach the others of its cluster; try again later." {
    }
    HOST_SHUTTING_DOWN = "host.shutting-down", 503, "The host is shutting down; connect again later." {
        host_shutting_down() "the host is shutting down";
    }
    HOST_NOT_SUPPORTED = "host.not-supported", 501, "This host does not offer what was asked for." {
        keeps_no_components() "this host keeps no components (store.memory)";
    }
    REQUEST_MALFORMED = "request.malformed", 400, "The HTTP request is not one that this route understands." {
        request_malformed(message: impl Display) "{message}";
        body_not_json(detail: impl Display) "the body is not JSON: {detail}";
        body_ended_early() "the body ended early";
    }
    REQUEST_TOO_LARGE = "request.too-large", 413, "The HTTP request's body is larger than the host accepts." {
        request_too_large(limit: u64) "the body is longer than {limit} bytes", "limit": limit;
        import_too_large(limit: u64) "the file is longer than admin.max-import-bytes, {limit} bytes", "limit": limit;
    }
    REQUEST_TIMEOUT = "request.timeout", 408, "The HTTP request's body did not arrive in time." {
        request_timeout(what: &str) "{what} did not arrive in time";
        import_timeout() "the rest of the file did not arrive";
    }
    REQUEST_NOT_FOUND = "request.not-found", 404, "No route has this path." {
        request_not_found() "there is nothing at this path";
    }
    REQUEST_METHOD_NOT_ALLOWED = "request.method-not-allowed", 405, "The route does not take this HTTP method." {
        request_method_not_allowed(message: impl Display) "{message}";
        path_method_not_allowed() "this path does not take this HTTP method";
    }
    REQUEST_UPGRADE_REQUIRED = "request.upgrade-required", 426, "The request asks for a WebSocket by another version of HTTP or of the WebSocket protocol than 1.1 and 13." {
        request_upgrade_required(error: impl Display) "{error}";
    }
    REQUEST_NOT_ACCEPTABLE = "request.not-acceptable", 406, "The request refuses the only form that the answer has." {
        request_not_acceptable() "events come as text/event-stream alone";
    }
    REQUEST_UNSUPPORTED_MEDIA = "request.unsupported-media", 415, "The HTTP request's body is of a type or coding that the route does not read." {
        request_unsupported_media(message: &str) "{message}";
    }
    REQUEST_EXPECTATION = "request.expectation", 417, "The request expects something that the host does not do; it knows `100-continue`." {
        request_expectation() "Expect: expected 100-continue";
    }
    REQUEST_FORBIDDEN_HOST = "request.forbidden-host", 403, "The `Host` header names none of the host's allowed names." {
        request_forbidden_host(host: &str) "this host does not answer to `{host}`: add it to gateway.hosts";
    }
    REQUEST_FORBIDDEN_ORIGIN = "request.forbidden-origin", 403, "The `Origin` header names none of the allowed origins." {
        request_forbidden_origin(message: impl Display) "{message}";
    }
    AUTH_REQUIRED = "auth.required", 401, "The host wants a token, and none was sent." {
        auth_required() "a token is required";
    }
    AUTH_INVALID = "auth.invalid", 401, "The token is not one that the host accepts; `params.reason` says why." {
        auth_invalid(message: impl Display, reason: &str) "{message}", "reason": reason;
    }
    AUTH_EXPIRED = "auth.expired", 401, "The token has expired; send a new one." {
        auth_expired() "the token has expired";
    }
    AUTH_OTHER_USER = "auth.other-user", 403, "The new token is not of the user whose connection this is." {
        auth_other_user() "the token is of another user than this connection";
    }
    AUTH_NOT_CONFIGURED = "auth.not-configured", 501, "The host has no key to verify tokens with: everybody is anonymous." {
        auth_not_configured() "the host verifies no tokens";
    }
    ACCESS_CLOSED = "access.closed", 403, "Nobody may subscribe to actors of this type or read them." {
        access_closed() "nobody may subscribe to actors of this type or read them";
    }
    ACCESS_LIMIT = "access.limit", 503, "Too many subscriptions wait for the actor's guard; try again later." {
        access_limit() "too many subscriptions wait for the actor's guard";
    }
    ADMIN_UNAUTHORIZED = "admin.unauthorized", 401, "This route wants the admin key as a bearer token." {
        admin_unauthorized(message: &str) "{message}";
        not_the_key() "expected the key as a bearer token";
    }
    RATE_FRAMES = "rate.frames", 429, "The connection sends frames faster than it may; the frame was not read." {
        rate_frames(retry_after_ms: u64) "too many frames: try again in {retry_after_ms} ms", "retryAfterMs": retry_after_ms;
    }
    RATE_CALLS = "rate.calls", 429, "The user calls faster than they may; the call was not made." {
        rate_calls(retry_after_ms: u64) "too many calls: try again in {retry_after_ms} ms", "retryAfterMs": retry_after_ms;
    }
    RATE_ACTORS = "rate.actors", 429, "Actors of the component come into memory faster than they may; try again later." {
        rate_actors(retry_after_ms: u64) "too many new actors: try again in {retry_after_ms} ms", "retryAfterMs": retry_after_ms;
    }
    CONNECTION_ADDRESS_LIMIT = "connection.address-limit", 429, "The client's address has as many connections as it may." {
        connection_address_limit(limit: usize) "one address may have {limit} connections at the same time", "limit": limit;
    }
    ACTOR_BUSY = "actor.busy", 409, "On Spin: other turns of the actor were in the way for too long; try again." {
        actor_busy() "other turns of this actor were in the way for too long: try again";
    }
    ACTOR_EXISTS = "actor.exists", 409, "There is such an actor already." {
        actor_exists(key: impl Display) "there is an actor {key} already";
    }
    ACTOR_IN_USE = "actor.in-use", 409, "The actor is in memory, where it cannot be replaced; try again later." {
        actor_in_use(key: impl Display) "the actor {key} is in memory";
    }
    IMPORT_INVALID = "import.invalid", 422, "The file is not a whole export; the message says where it is wrong." {
        import_invalid(line: u64, problem: impl Display) "line {line}: {problem}", "line": line;
    }
    ACTOR_DESTROYED = "actor.destroyed", 409, "The actor was destroyed while the call ran or waited." {
        actor_destroyed() "the actor was destroyed meanwhile";
    }
    ACTOR_NOT_FOUND = "actor.not-found", 404, "There is no such actor, in memory or stored." {
        actor_not_found(key: impl Display) "there is no actor {key}";
    }
    COMPONENT_INVALID = "component.invalid", 422, "The upload is not a component that the host can serve; the message says why." {
        component_invalid(error: impl Display) "{error}";
    }
    COMPONENT_INVALID_NAME = "component.invalid-name", 400, "A component's name is not of the agreed shape." {
        component_invalid_name(error: impl Display) "{error}";
    }
    COMPONENT_TOO_LARGE = "component.too-large", 413, "The upload is larger than a component may be, or takes more to compile; the message says what, `params.which` the setting." {
        upload_too_large(limit: u64) "the upload is longer than engine.max-component-bytes, {limit} bytes", "limit": limit;
        component_too_large(error: impl Display) "{error}";
        component_too_complex(error: impl Display, which: String, limit: u64) "{error}", "which": which, "limit": limit;
    }
    COMPONENT_BUSY = "component.busy", 409, "Another upload of this component, or too many others, are under way; try again later." {
        component_busy(what: impl Display) "{what}";
    }
    COMPONENT_CONFLICT = "component.conflict", 409, "Another component serves an actor type of the upload." {
        component_conflict(conflict: impl Display, actor: &str, component: &str) "{conflict}", "actor": actor, "component": component;
    }
    COMPONENT_IN_USE = "component.in-use", 409, "Actors that only this component serves are in memory." {
        component_in_use(actors: usize) "{actors} actors that only this component serves are in memory", "actors": actors;
    }
    COMPONENT_UNKNOWN = "component.unknown", 404, "No component of this name is loaded." {
        component_unknown() "no component of this name is loaded";
    }
    COMPONENT_VERSION_UNKNOWN = "component.version-unknown", 404, "No such version of the component is kept." {
        component_version_unknown(message: impl Display) "{message}";
    }
    COMPONENT_DAMAGED = "component.damaged", 500, "The file of the component's version is damaged or missing; the message names it." {
        component_damaged(error: impl Display) "{error}";
    }
    COMPONENT_SELF_TEST = "component.self-test", 422, "The component's self-test failed; the message says why, `params.code` is its own code." {
        component_self_test(error: impl Display, code: &str) "{error}", "code": code;
    }
    COMPONENT_TIMEOUT = "component.timeout", 504, "The upload took too long to compile or to describe itself." {
        component_timeout(error: impl Display) "{error}";
    }
    CONNECTION_LIMIT = "connection.limit", 503, "The host has as many connections as it may." {
        connection_limit() "the host has too many connections";
    }
    CONNECTION_ACTOR_LIMIT = "connection.actor-limit", 429, "The connection has had contact with as many actors as it may." {
        connection_actor_limit(limit: usize) "one connection may have contact with {limit} actors", "limit": limit;
    }
    UNSUPPORTED_ON_SPIN = "unsupported.on-spin", 501, "The host offers this, Spin does not, or not as the application is set up; the message says what." {
        unsupported_on_spin(message: impl Display) "{message}";
        no_tick_key() "ticks need the variable `tidegate_tick_key`";
    }
    INTERNAL = "internal", 500, "The host failed; its log says why." {
        host_failed() "the host failed";
        unanswered() "the call was not answered";
        handler_undescribed() "the handler does not say what it is";
        internal(message: impl Display) "{message}";
    }
}

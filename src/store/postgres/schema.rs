//! The tables as diesel sees them. The migrations are the truth; this must follow them.

diesel::table! {
    user_interactions (id) {
        id -> BigInt,
        timestamp -> Timestamptz,
        received_at -> Timestamptz,
        event_id -> Uuid,
        bucket -> Date,
        processed -> Bool,
        source -> Text,
        producer -> Text,
        event_type -> Text,
        user_id -> Nullable<Text>,
        session_id -> Nullable<Text>,
        original_id -> Nullable<Text>,
        event_data -> Jsonb,
        schema_version -> Nullable<SmallInt>,
    }
}

diesel::table! {
    eclusa_schema (single) {
        single -> Bool,
        version -> Integer,
        oldest_compatible -> Integer,
    }
}

diesel::table! {
    dead_letters (id) {
        id -> Uuid,
        state -> Text,
        created_at -> Timestamptz,
        failed_at -> Timestamptz,
        replayed_at -> Nullable<Timestamptz>,
        replays -> Integer,
        attempts -> Integer,
        frame -> Bool,
        cause -> Text,
        error -> Text,
        sqlstate -> Nullable<Text>,
        origin -> Text,
        event_id -> Nullable<Uuid>,
        event_type -> Nullable<Text>,
        content_type -> Nullable<Text>,
        message_id -> Nullable<Text>,
        body -> Bytea,
        headers -> Jsonb,
        history -> Jsonb,
    }
}

diesel::table! {
    log_commits (seq) {
        seq -> BigInt,
        block -> BigInt,
        events -> Integer,
        buckets -> Array<Date>,
        types -> Array<Text>,
        numbered_at -> Timestamptz,
    }
}

diesel::table! {
    log_floor (single) {
        single -> Bool,
        complete_since -> Nullable<Date>,
        deleted_to -> BigInt,
    }
}

diesel::table! {
    followers (name) {
        name -> Text,
        kind -> Text,
        state -> Text,
        reason -> Nullable<Text>,
        on_error -> Text,
        revision -> BigInt,
        rebuild -> Bool,
        complete_since -> Nullable<Date>,
        declared_at -> Timestamptz,
        changed_at -> Timestamptz,
    }
}

diesel::table! {
    follower_declarations (follower, holds_from) {
        follower -> Text,
        holds_from -> BigInt,
        types -> Array<Text>,
        spec -> Nullable<Jsonb>,
    }
}

diesel::table! {
    follower_positions (follower, n) {
        follower -> Text,
        n -> BigInt,
        position -> BigInt,
        stored_at -> Timestamptz,
        begun -> Integer,
    }
}

diesel::table! {
    follower_replays (letter) {
        letter -> Uuid,
        follower -> Text,
        position -> BigInt,
        event -> Jsonb,
        requested_at -> Timestamptz,
    }
}

diesel::table! {
    reactions (id) {
        id -> Integer,
        name -> Text,
        paused -> Bool,
        declared_at -> Timestamptz,
    }
}

diesel::table! {
    reaction_runs (reaction, position, epoch) {
        reaction -> Integer,
        position -> BigInt,
        epoch -> Integer,
        event_id -> Uuid,
        state -> Text,
        attempts -> Integer,
        finished_at -> Nullable<Timestamptz>,
        duration_us -> Nullable<BigInt>,
        worker -> Nullable<Text>,
        error -> Nullable<Text>,
        history -> Nullable<Jsonb>,
    }
}

diesel::table! {
    /// A view.
    reaction_positions (reaction) {
        reaction -> Integer,
        name -> Nullable<Text>,
        marked_to -> BigInt,
        decided_to -> Nullable<BigInt>,
    }
}

diesel::table! {
    streams (id) {
        id -> Integer,
        name -> Text,
        declared_at -> Timestamptz,
    }
}

diesel::table! {
    pix_messages (id) {
        id -> BigInt,
        end_to_end_id -> Text,
        event_id -> Uuid,
    }
}

diesel::table! {
    captures (name, n) {
        name -> Text,
        n -> BigInt,
        token -> BigInt,
        state -> Text,
        stored_at -> Timestamptz,
    }
}

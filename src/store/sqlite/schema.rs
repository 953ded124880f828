//! The tables as diesel sees them. The migrations are the truth; this must follow them.

diesel::table! {
    user_interactions (id) {
        id -> BigInt,
        event_id -> Binary,
        timestamp -> BigInt,
        received_at -> BigInt,
        processed -> Bool,
        source -> Text,
        producer -> Text,
        event_type -> Text,
        user_id -> Nullable<Text>,
        session_id -> Nullable<Text>,
        original_id -> Nullable<Text>,
        event_data -> Text,
        schema_version -> Nullable<SmallInt>,
    }
}

diesel::table! {
    eclusa_schema (single) {
        single -> Integer,
        version -> Integer,
        oldest_compatible -> Integer,
    }
}

diesel::table! {
    dead_letters (id) {
        id -> Binary,
        state -> Text,
        created_at -> BigInt,
        failed_at -> BigInt,
        replayed_at -> Nullable<BigInt>,
        replays -> Integer,
        attempts -> Integer,
        frame -> Bool,
        cause -> Text,
        error -> Text,
        sqlstate -> Nullable<Text>,
        origin -> Text,
        event_id -> Nullable<Binary>,
        event_type -> Nullable<Text>,
        content_type -> Nullable<Text>,
        message_id -> Nullable<Text>,
        body -> Binary,
        headers -> Text,
        history -> Text,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        token -> BigInt,
        holder -> Nullable<Text>,
        until -> BigInt,
    }
}

diesel::table! {
    log_generation (single) {
        single -> Integer,
        generation -> BigInt,
    }
}

diesel::table! {
    log_floor (single) {
        single -> Integer,
        complete_since -> Nullable<Text>,
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
        complete_since -> Nullable<Text>,
        declared_at -> BigInt,
        changed_at -> BigInt,
    }
}

diesel::table! {
    follower_declarations (follower, holds_from) {
        follower -> Text,
        holds_from -> BigInt,
        types -> Text,
        spec -> Nullable<Text>,
    }
}

diesel::table! {
    follower_positions (follower, n) {
        follower -> Text,
        n -> BigInt,
        position -> BigInt,
        stored_at -> BigInt,
        begun -> Integer,
    }
}

diesel::table! {
    follower_replays (letter) {
        letter -> Binary,
        follower -> Text,
        position -> BigInt,
        event -> Text,
        requested_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(followers, follower_declarations, follower_positions);
diesel::allow_tables_to_appear_in_same_query!(dead_letters, follower_replays, user_interactions);

diesel::table! {
    reactions (id) {
        id -> Integer,
        name -> Text,
        paused -> Bool,
        declared_at -> BigInt,
    }
}

diesel::table! {
    reaction_runs (reaction, position) {
        reaction -> Integer,
        position -> BigInt,
        event_id -> Binary,
        state -> Text,
        attempts -> Integer,
        finished_at -> Nullable<BigInt>,
        duration_us -> Nullable<BigInt>,
        worker -> Nullable<Text>,
        error -> Nullable<Text>,
        history -> Nullable<Text>,
    }
}

diesel::table! {
    reaction_queue (reaction, position) {
        reaction -> Integer,
        position -> BigInt,
        event_id -> Binary,
        event -> Text,
        order_key -> Nullable<Text>,
        unique_key -> Nullable<Text>,
        due -> BigInt,
        attempts -> Integer,
        attempts_before -> Integer,
        alone -> Bool,
        token -> Nullable<BigInt>,
        worker -> Nullable<Text>,
        claimed_at -> Nullable<BigInt>,
        history -> Text,
        reopened -> Bool,
    }
}

diesel::table! {
    reaction_counts (reaction) {
        reaction -> Integer,
        succeeded -> BigInt,
    }
}

diesel::table! {
    reaction_marks (reaction) {
        reaction -> Integer,
        marked_to -> BigInt,
    }
}

diesel::table! {
    removed_reactions (id) {
        id -> Integer,
        until -> BigInt,
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

diesel::allow_tables_to_appear_in_same_query!(reactions, reaction_runs);

diesel::table! {
    streams (id) {
        id -> Integer,
        name -> Text,
        declared_at -> BigInt,
    }
}

diesel::table! {
    stream_secret (secret) {
        secret -> Binary,
    }
}

diesel::table! {
    stream_messages (stream, key, number) {
        stream -> Integer,
        key -> Text,
        number -> BigInt,
        event_id -> Binary,
        order_key -> Nullable<Text>,
        body -> Text,
        since -> BigInt,
    }
}

diesel::table! {
    stream_sessions (id) {
        id -> BigInt,
        stream -> Integer,
        key -> Text,
        slot -> Integer,
        started_at -> BigInt,
    }
}

diesel::table! {
    stream_answers (id) {
        id -> BigInt,
        stream -> Integer,
        key -> Text,
        session -> Nullable<BigInt>,
        n -> Integer,
        handed -> Text,
        cursor -> BigInt,
        expires_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    stream_returned (stream, key, number) {
        stream -> Integer,
        key -> Text,
        number -> BigInt,
        order_key -> Nullable<Text>,
        deliveries -> Integer,
        due -> BigInt,
    }
}

diesel::table! {
    stream_parked (stream, key, order_key, number) {
        stream -> Integer,
        key -> Text,
        order_key -> Text,
        number -> BigInt,
    }
}

diesel::table! {
    clients (id) {
        id -> BigInt,
        name -> Text,
        document -> Text,
        ispb -> Text,
        branch -> Text,
        account -> Text,
        account_type -> Text,
    }
}

diesel::table! {
    pix_messages (id) {
        id -> BigInt,
        end_to_end_id -> Text,
        event_id -> Binary,
        payer_id -> BigInt,
        receiver_id -> BigInt,
        amount_cents -> BigInt,
        free_text -> Text,
        tx_id -> Text,
        paid_at -> BigInt,
        recorded_at -> BigInt,
    }
}

diesel::table! {
    captures (name, n) {
        name -> Text,
        n -> BigInt,
        token -> BigInt,
        state -> Text,
        stored_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(stream_answers, stream_sessions);

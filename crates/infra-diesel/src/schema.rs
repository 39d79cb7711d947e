//! The tables, as both migrations make them.

diesel::table! {
    pools (id) {
        id -> BigInt,
        name -> Text,
        kind -> Text,
        quota_cpu_millis -> Nullable<BigInt>,
        quota_memory_mib -> Nullable<BigInt>,
        quota_storage_mib -> Nullable<BigInt>,
        quota_gpus -> Nullable<BigInt>,
        watermarks -> Text,
        strategy -> Text,
        labels -> Text,
        description -> Nullable<Text>,
        state -> Text,
        search_text -> Text,
        revision -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
        reserved_cpu_millis -> BigInt,
        reserved_memory_mib -> BigInt,
        reserved_storage_mib -> BigInt,
        reserved_gpus -> BigInt,
    }
}

diesel::table! {
    servers (id) {
        id -> BigInt,
        name -> Text,
        architecture -> Text,
        status -> Text,
        cpu_millis -> BigInt,
        memory_mib -> BigInt,
        storage_mib -> BigInt,
        gpus -> BigInt,
        reserved_cpu_millis -> BigInt,
        reserved_memory_mib -> BigInt,
        reserved_storage_mib -> BigInt,
        reserved_gpus -> BigInt,
        gpu_model -> Nullable<Text>,
        location -> Nullable<Text>,
        cluster -> Nullable<Text>,
        zone -> Nullable<Text>,
        pool_id -> Nullable<BigInt>,
        tags -> Text,
        cordoned -> Bool,
        emulated_architectures -> Text,
        drivers -> Text,
        os -> Nullable<Text>,
        kernel -> Nullable<Text>,
        agent_version -> Nullable<Text>,
        last_seen_at_us -> Nullable<BigInt>,
        revision -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
        role -> Text,
        password_hash -> Text,
        disabled -> Bool,
        revision -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    tokens (id) {
        id -> BigInt,
        name -> Text,
        secret_digest -> Text,
        role -> Text,
        scopes -> Nullable<Text>,
        expires_at_us -> Nullable<BigInt>,
        last_used_at_us -> Nullable<BigInt>,
        created_by -> Text,
        created_at_us -> BigInt,
    }
}

diesel::table! {
    sessions (id) {
        id -> BigInt,
        user_id -> BigInt,
        secret_digest -> Text,
        expires_at_us -> BigInt,
        created_at_us -> BigInt,
    }
}

diesel::table! {
    tickets (secret_digest) {
        secret_digest -> Text,
        credential_digest -> Text,
        expires_at_us -> BigInt,
    }
}

diesel::table! {
    idempotency_keys (caller, idempotency_key) {
        caller -> Text,
        idempotency_key -> Text,
        fingerprint -> Text,
        answer -> Text,
        created_at_us -> BigInt,
    }
}

diesel::table! {
    audit_logs (seq) {
        seq -> BigInt,
        created_at_us -> BigInt,
        actor -> Text,
        action -> Text,
        target -> Nullable<Text>,
        outcome -> Text,
        canonical -> Text,
        hash -> Text,
    }
}

diesel::table! {
    audit_head (id) {
        id -> BigInt,
        seq -> BigInt,
        hash -> Text,
    }
}

diesel::table! {
    audit_checkpoints (seq) {
        seq -> BigInt,
        hash -> Text,
        created_at_us -> BigInt,
        mac -> Text,
    }
}

diesel::table! {
    leases (job) {
        job -> Text,
        holder -> Text,
        expires_at_us -> BigInt,
    }
}

diesel::table! {
    tasks (id) {
        id -> BigInt,
        spec -> Text,
        status -> Text,
        pool_id -> Nullable<BigInt>,
        attempt -> BigInt,
        server_id -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        detail -> Nullable<Text>,
        search_text -> Text,
        revision -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
        scheduled_at_us -> Nullable<BigInt>,
        started_at_us -> Nullable<BigInt>,
        finished_at_us -> Nullable<BigInt>,
        barred -> Text,
    }
}

diesel::table! {
    attempts (task_id, number) {
        task_id -> BigInt,
        number -> BigInt,
        server_id -> BigInt,
        cpu_millis -> BigInt,
        memory_mib -> BigInt,
        storage_mib -> BigInt,
        gpus -> BigInt,
        held -> Bool,
        status -> Text,
        exit_code -> Nullable<BigInt>,
        signal -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        created_at_us -> BigInt,
        started_at_us -> Nullable<BigInt>,
        finished_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    enrollments (id) {
        id -> BigInt,
        name -> Text,
        pool_id -> Nullable<BigInt>,
        tags -> Text,
        max_uses -> BigInt,
        uses -> BigInt,
        expires_at_us -> BigInt,
        created_by -> Text,
        created_at_us -> BigInt,
        secret_digest -> Text,
    }
}

diesel::table! {
    agents (server_id) {
        server_id -> BigInt,
        token_digest -> Text,
        place -> Text,
        enrolled_at_us -> BigInt,
    }
}

diesel::table! {
    operations (id) {
        id -> BigInt,
        server_id -> BigInt,
        kind -> Text,
        task_id -> Nullable<BigInt>,
        attempt -> Nullable<BigInt>,
        state -> Text,
        cancel_requested -> Bool,
        progress -> Nullable<Text>,
        result -> Nullable<Text>,
        created_at_us -> BigInt,
        started_at_us -> Nullable<BigInt>,
        finished_at_us -> Nullable<BigInt>,
        deed -> Nullable<Text>,
    }
}

diesel::table! {
    containers (id) {
        id -> BigInt,
        server_id -> BigInt,
        engine_id -> Text,
        state -> Text,
        project -> Nullable<Text>,
        task_id -> Nullable<BigInt>,
        search_text -> Text,
        observed -> Text,
        usage -> Nullable<Text>,
    }
}

diesel::table! {
    container_reports (server_id) {
        server_id -> BigInt,
        reported_at_us -> BigInt,
        session -> Text,
    }
}

diesel::table! {
    samples (server_id, at_us) {
        server_id -> BigInt,
        at_us -> BigInt,
        readings -> Binary,
    }
}

diesel::table! {
    sample_days (server_id, day) {
        server_id -> BigInt,
        day -> BigInt,
        revision -> BigInt,
        count -> BigInt,
        first_us -> BigInt,
        last_us -> BigInt,
        times -> Binary,
    }
}

diesel::table! {
    sample_columns (server_id, metric, day) {
        server_id -> BigInt,
        metric -> Integer,
        day -> BigInt,
        readings -> Binary,
        hours -> Binary,
    }
}

diesel::table! {
    sample_newest (server_id) {
        server_id -> BigInt,
        at_us -> BigInt,
        readings -> Binary,
    }
}

diesel::table! {
    maintenance_windows (id) {
        id -> BigInt,
        server_id -> BigInt,
        title -> Text,
        description -> Nullable<Text>,
        scheduled_for_us -> BigInt,
        duration_minutes -> BigInt,
        status -> Text,
        started_at_us -> Nullable<BigInt>,
        ended_at_us -> Nullable<BigInt>,
        back_to -> Nullable<Text>,
        due_at_us -> Nullable<BigInt>,
        revision -> BigInt,
        created_by -> Text,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    alert_rules (id) {
        id -> BigInt,
        name -> Text,
        enabled -> Bool,
        spec -> Text,
        revision -> BigInt,
        created_by -> Text,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    alerts (id) {
        id -> BigInt,
        rule_id -> BigInt,
        rule_name -> Text,
        severity -> Text,
        metric -> Nullable<Text>,
        subject_kind -> Text,
        subject_id -> BigInt,
        subject_name -> Text,
        state -> Text,
        since_us -> BigInt,
        fired_at_us -> Nullable<BigInt>,
        acknowledged_at_us -> Nullable<BigInt>,
        acknowledged_by -> Nullable<Text>,
        note -> Nullable<Text>,
        ended_at_us -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        value -> Double,
        notified_at_us -> Nullable<BigInt>,
        revision -> BigInt,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    alert_changes (alert_id, number) {
        alert_id -> BigInt,
        number -> BigInt,
        at_us -> BigInt,
        from_state -> Nullable<Text>,
        to_state -> Text,
        value -> Double,
        actor -> Text,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    alert_targets (id) {
        id -> BigInt,
        name -> Text,
        kind -> Text,
        enabled -> Bool,
        spec -> Text,
        secret -> Nullable<Text>,
        revision -> BigInt,
        created_by -> Text,
        created_at_us -> BigInt,
        updated_at_us -> BigInt,
    }
}

diesel::table! {
    alert_deliveries (id) {
        id -> BigInt,
        alert_id -> Nullable<BigInt>,
        target_id -> BigInt,
        target_name -> Text,
        event -> Text,
        message -> Text,
        state -> Text,
        tries -> BigInt,
        due_at_us -> Nullable<BigInt>,
        created_at_us -> BigInt,
        finished_at_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    alert_tries (delivery_id, number) {
        delivery_id -> BigInt,
        number -> BigInt,
        at_us -> BigInt,
        status -> Nullable<BigInt>,
        error -> Nullable<Text>,
    }
}

diesel::joinable!(servers -> pools (pool_id));
diesel::joinable!(agents -> servers (server_id));
diesel::joinable!(attempts -> tasks (task_id));
diesel::joinable!(sessions -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(pools, servers);
diesel::allow_tables_to_appear_in_same_query!(servers, agents);
diesel::allow_tables_to_appear_in_same_query!(users, sessions);
diesel::allow_tables_to_appear_in_same_query!(tasks, attempts);

/* The hub: numbers, a full command ring, effects to the right session, and what is held until durable. */
#include "proto/hub.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct probe {
    struct session session; /* first */
    unsigned effects, durables, rooms, freed, fanned, made;
    uint32_t handle;
    bool own;
    lsn_t hold_until;
};

static void on_effect(struct session *session, struct effect *effect)
{
    struct probe *probe = (struct probe *)session;
    probe->effects++;
    if (effect->lsn) {
        probe->hold_until = effect->lsn;
        hub_hold(session->hub, session);
    }
    hub_drop(session->hub, effect);
}

static bool on_durable(struct session *session, lsn_t durable)
{
    struct probe *probe = (struct probe *)session;
    probe->durables++;
    return probe->hold_until > durable;
}

static void on_room(struct session *session)
{
    ((struct probe *)session)->rooms++;
}

/* What the first session encodes the others find. */
static void on_fanout(struct session *session, struct fanout *fanout, uint32_t handle)
{
    struct probe *probe = (struct probe *)session;
    const struct fanout_form *form = fanout_find(fanout, 7);
    if (!form) {
        uint8_t *room = fanout_make(fanout, 7, 3);
        assert_non_null(room);
        memcpy(room, "abc", 3);
        probe->made++;
        form = fanout_find(fanout, 7);
    }
    assert_memory_equal(form->bytes, "abc", 3);
    assert_int_equal(form->len, 3);
    assert_null(fanout_make(fanout, 8, 1u << 20)); /* that is for lending */
    probe->fanned++;
    probe->handle = handle;
    probe->own = fanout->any_from && fanout->from == session->number;
}

static void on_free(struct session *session)
{
    ((struct probe *)session)->freed++;
}

static void probe_init(struct probe *probe)
{
    *probe = (struct probe){.session = {.on_effect = on_effect,
                                        .on_fanout = on_fanout,
                                        .on_durable = on_durable,
                                        .on_room = on_room,
                                        .free = on_free}};
}

struct scene {
    struct port port;
    struct slab_heap heap;
    struct hub *hub;
};

static void scene_init(struct scene *scene, uint32_t sessions_max)
{
    slab_heap_init(&scene->heap);
    assert_true(ring_init(&scene->port.commands, 128, sizeof(struct command)));
    assert_true(ring_init(&scene->port.effects, 128, sizeof(struct effect)));
    scene->hub = hub_new(&scene->port, &scene->heap, sessions_max);
    assert_non_null(scene->hub);
}

static void scene_fini(struct scene *scene)
{
    hub_free(&scene->hub);
    ring_fini(&scene->port.commands);
    ring_fini(&scene->port.effects);
    slab_heap_fini(&scene->heap);
}

static void emit(struct scene *scene, enum effect_type type, uint32_t session, lsn_t lsn)
{
    struct effect *e = ring_push(&scene->port.effects);
    assert_non_null(e);
    *e = (struct effect){.type = (uint8_t)type, .session = session, .lsn = lsn};
    ring_publish(&scene->port.effects);
}

static void numbers(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static struct probe probes[MANY + 1];
    struct scene scene;
    scene_init(&scene, MANY);
    for (unsigned i = 0; i <= MANY; i++)
        probe_init(&probes[i]);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hub_attach(scene.hub, &probes[i].session));
    assert_false(hub_attach(scene.hub, &probes[MANY].session));
    for (unsigned i = 0; i < MANY; i++)
        for (unsigned j = 0; j < i; j++)
            assert_true(probes[i].session.number != probes[j].session.number);
    uint32_t freed = probes[7].session.number;
    hub_detach(scene.hub, &probes[7].session);
    assert_true(hub_attach(scene.hub, &probes[MANY].session));
    assert_int_equal(probes[MANY].session.number, freed);
    for (unsigned i = 0; i <= MANY; i++)
        if (i != 7)
            hub_detach(scene.hub, &probes[i].session);
    scene_fini(&scene);
}

static void last_word(void **state)
{
    (void)state;
    struct scene scene;
    struct probe a, b;
    scene_init(&scene, 8);
    probe_init(&a);
    probe_init(&b);
    assert_true(hub_attach(scene.hub, &a.session) && hub_attach(scene.hub, &b.session));
    a.session.core_open = b.session.core_open = true;
    a.session.gone = true;
    emit(&scene, EFF_ANSWER, a.session.number, 0);
    emit(&scene, EFF_SESSION_CLOSED, a.session.number, 0);
    emit(&scene, EFF_SESSION_CLOSED, b.session.number, 0);
    assert_false(hub_turn(scene.hub, 0, 1));
    assert_int_equal(a.effects, 2);
    assert_int_equal(a.freed, 1);
    assert_int_equal(b.freed, 0); /* its transport is still there */
    assert_false(b.session.core_open);
    assert_int_equal(hub_sessions(scene.hub), 1);
    hub_detach(scene.hub, &b.session);
    scene_fini(&scene);
}

static void full_ring(void **state)
{
    (void)state;
    struct scene scene;
    struct probe a, b;
    scene_init(&scene, 8);
    probe_init(&a);
    probe_init(&b);
    assert_true(hub_attach(scene.hub, &a.session) && hub_attach(scene.hub, &b.session));
    unsigned got = 0;
    while (hub_command(scene.hub, &a.session))
        got++;
    assert_int_equal(got, 128);
    hub_wait_room(scene.hub, &a.session);
    hub_wait_room(scene.hub, &b.session);
    hub_wait_room(scene.hub, &b.session);
    assert_true(hub_publish(scene.hub));
    assert_false(hub_publish(scene.hub));
    hub_turn(scene.hub, 0, 1);
    assert_int_equal(a.rooms, 0);
    for (unsigned i = 0; i < 100; i++) {
        assert_non_null(ring_peek(&scene.port.commands));
        ring_pop(&scene.port.commands);
    }
    hub_turn(scene.hub, 0, 1);
    hub_turn(scene.hub, 0, 1);
    assert_int_equal(a.rooms, 1);
    assert_int_equal(b.rooms, 1);
    hub_detach(scene.hub, &a.session);
    hub_detach(scene.hub, &b.session);
    scene_fini(&scene);
}

static void held(void **state)
{
    (void)state;
    struct scene scene;
    struct probe a;
    scene_init(&scene, 8);
    probe_init(&a);
    assert_true(hub_attach(scene.hub, &a.session));
    hub_turn(scene.hub, 3, 1);
    assert_int_equal(a.durables, 0);
    emit(&scene, EFF_CONFIRM, a.session.number, 5);
    hub_turn(scene.hub, 4, 1);
    assert_int_equal(a.durables, 1);
    hub_turn(scene.hub, 5, 1);
    unsigned seen = a.durables;
    assert_true(seen >= 2);
    hub_turn(scene.hub, 9, 1);
    assert_int_equal(a.durables, seen); /* nothing is held any more */
    assert_int_equal(hub_durable(scene.hub), 9);
    hub_turn(scene.hub, 8, 1);
    assert_int_equal(hub_durable(scene.hub), 9); /* never back */
    hub_detach(scene.hub, &a.session);
    scene_fini(&scene);
}

static void works_on_room(struct session *session)
{
    on_room(session);
    hub_worked(session->hub, 6u << 20);
    hub_wait_turn(session->hub, session);
}

/* Who has work does some in each turn, and who is not reached comes first in the next. */
static void shares_of_turns(void **state)
{
    (void)state;
    struct scene scene;
    struct probe probes[3];
    scene_init(&scene, 8);
    for (unsigned i = 0; i < 3; i++) {
        probe_init(&probes[i]);
        probes[i].session.on_room = works_on_room;
        assert_true(hub_attach(scene.hub, &probes[i].session));
        hub_wait_room(scene.hub, &probes[i].session);
        hub_wait_turn(scene.hub, &probes[i].session);
    }
    for (unsigned turn = 1; turn <= 6; turn++) {
        assert_true(hub_turn(scene.hub, 0, 1));
        assert_false(hub_may_work(scene.hub));
        assert_int_equal(probes[0].rooms + probes[1].rooms + probes[2].rooms, 2 * turn);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(probes[i].rooms, 4);
        probes[i].session.on_room = on_room;
    }
    assert_false(hub_turn(scene.hub, 0, 1));
    assert_false(hub_turn(scene.hub, 0, 1));
    assert_true(hub_may_work(scene.hub) && probes[0].rooms == 5 && probes[2].rooms == 5);
    hub_wait_turn(scene.hub, &probes[1].session);
    for (unsigned i = 0; i < 3; i++)
        hub_detach(scene.hub, &probes[i].session);
    assert_false(hub_turn(scene.hub, 0, 1));
    scene_fini(&scene);
}

static void memory(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    for (uint64_t n = 1; n < 4; n++) {
        struct scene scene;
        struct probe a;
        scene_init(&scene, 8);
        probe_init(&a);
        mem_fail_at(n, true);
        bool attached = hub_attach(scene.hub, &a.session);
        mem_fail_at(0, false);
        assert_true(attached == (n > 2));
        if (attached)
            hub_detach(scene.hub, &a.session);
        scene_fini(&scene);
    }
    assert_int_equal(mem_in_use(), before);
}

static void fan_out(void **state)
{
    (void)state;
    struct scene scene;
    struct probe probes[4];
    scene_init(&scene, 8);
    struct audience_part *part = mem_alloc_as(MEM_CONNECTIONS, sizeof *part + 4 * sizeof part->members[0]);
    assert_non_null(part);
    *part = (struct audience_part){.refs = 2, .count = 4, .max = 4};
    for (unsigned i = 0; i < 4; i++) {
        probe_init(&probes[i]);
        assert_true(hub_attach(scene.hub, &probes[i].session));
        part->members[i] = (uint64_t)probes[i].session.number << 32 | (10 + i);
    }
    part->members[1] = AUDIENCE_LEFT;
    probes[2].session.gone = true; /* the core does not know yet */
    struct msg *msg = msg_new(&scene.heap, (struct slice){0}, (struct slice){0}, (struct slice){0}, 0);
    struct effect *e = ring_push(&scene.port.effects);
    *e = (struct effect){.type = EFF_FANOUT, .audience = part, .consumer = 4, .msg = msg};
    e->number = probes[3].session.number + 1u;
    ring_publish(&scene.port.effects);
    (void)hub_turn(scene.hub, 0, 0);
    assert_int_equal(probes[0].fanned, 1);
    assert_int_equal(probes[0].handle, 10);
    assert_int_equal(probes[1].fanned + probes[2].fanned, 0);
    assert_int_equal(probes[3].fanned, 1);
    assert_int_equal(probes[0].made + probes[3].made, 1);
    assert_true(probes[3].own && !probes[0].own);
    assert_int_equal(part->refs, 1);
    audience_unref(part);
    for (unsigned i = 0; i < 4; i++)
        hub_detach(scene.hub, &probes[i].session);
    scene_fini(&scene);
}

/* Long ones do not keep the sockets waiting for a ring full of them. */
static void long_fan_outs(void **state)
{
    (void)state;
    enum { MEMBERS = 400, TOLD = 20 };
    struct scene scene;
    struct probe a;
    scene_init(&scene, 8);
    probe_init(&a);
    assert_true(hub_attach(scene.hub, &a.session));
    struct audience_part *part = mem_alloc_as(MEM_CONNECTIONS, sizeof *part + MEMBERS * sizeof part->members[0]);
    assert_non_null(part);
    *part = (struct audience_part){.refs = TOLD, .count = MEMBERS, .max = MEMBERS};
    for (unsigned i = 0; i < MEMBERS; i++)
        part->members[i] = (uint64_t)a.session.number << 32 | i;
    for (unsigned i = 0; i < TOLD; i++) {
        struct effect *e = ring_push(&scene.port.effects);
        assert_non_null(e);
        *e = (struct effect){.type = EFF_FANOUT, .audience = part, .consumer = MEMBERS};
        e->msg = msg_new(&scene.heap, (struct slice){0}, (struct slice){0}, (struct slice){0}, 0);
    }
    ring_publish(&scene.port.effects);
    unsigned turns = 1;
    while (hub_turn(scene.hub, 0, 0)) {
        assert_true(a.fanned <= turns * 6 * MEMBERS);
        turns++;
    }
    assert_int_equal(a.fanned, TOLD * MEMBERS);
    assert_in_range(turns, 4, 6);
    hub_detach(scene.hub, &a.session);
    scene_fini(&scene);
}

static const struct engine_ops silent = {.name = "silent"};

/* Takes all commands; the last of them. */
static struct command take_commands(struct scene *scene)
{
    struct command last = {0};
    hub_publish(scene->hub);
    for (struct command *c; (c = ring_peek(&scene->port.commands)) != NULL; ring_pop(&scene->port.commands))
        last = *c;
    return last;
}

static void credit_of_what_has_left(void **state)
{
    (void)state;
    struct scene scene;
    struct probe probe;
    scene_init(&scene, 8);
    probe_init(&probe);
    struct session *session = &probe.session;
    assert_true(session_connect(session, scene.hub, &silent, "a:1", true, 5));
    assert_true(session->engine.peer_loopback && session->heard_at == 5);
    assert_string_equal(session->engine.peer, "a:1");
    session->credit_bytes = SESSION_CREDIT_STEP - 1;
    session->core_open = true;
    session_credit_return(session);
    assert_int_equal(take_commands(&scene).type, 0); /* too little for a command */
    session->credit_bytes = SESSION_CREDIT_STEP + 10;
    session->engine.out.len = 7; /* that has not left */
    session_credit_return(session);
    struct command said = take_commands(&scene);
    assert_int_equal(said.type, CMD_CREDIT);
    assert_int_equal(said.number, SESSION_CREDIT_STEP + 3);
    assert_int_equal(session->credit_bytes, 7);
    session->engine.out.len = 0;

    session->credit_bytes = SESSION_CREDIT_STEP;
    while (hub_command(scene.hub, session))
        continue;
    session_credit_return(session); /* no slot: when there is one */
    assert_int_equal(session->credit_bytes, SESSION_CREDIT_STEP);
    take_commands(&scene);
    hub_turn(scene.hub, 0, 6);
    assert_int_equal(take_commands(&scene).type, CMD_CREDIT);
    assert_int_equal(session->credit_bytes, 0);

    struct list dirty;
    list_init(&dirty);
    session->engine.dirty = &dirty;
    engine_dirty(&session->engine);
    session_cut(session);
    assert_true(list_empty(&dirty) && !session->engine.dirty && !probe.freed);
    session_end(session);
    assert_int_equal(take_commands(&scene).type, CMD_SESSION_CLOSE);
    assert_int_equal(probe.freed, 0); /* until the core has let go */
    emit(&scene, EFF_SESSION_CLOSED, session->number, 0);
    hub_turn(scene.hub, 0, 7);
    assert_int_equal(probe.freed, 1);
    scene_fini(&scene);
}

static void nobody_waits_for_a_session_that_never_was_open(void **state)
{
    (void)state;
    struct scene scene;
    struct probe probe;
    scene_init(&scene, 8);
    probe_init(&probe);
    assert_true(session_connect(&probe.session, scene.hub, &silent, "a:1", true, 5));
    session_cut(&probe.session);
    session_end(&probe.session);
    assert_int_equal(probe.freed, 1);
    assert_int_equal(hub_sessions(scene.hub), 0);
    assert_int_equal(take_commands(&scene).type, 0);
    scene_fini(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(last_word),
        cmocka_unit_test(full_ring),
        cmocka_unit_test(held),
        cmocka_unit_test(shares_of_turns),
        cmocka_unit_test(memory),
        cmocka_unit_test(fan_out),
        cmocka_unit_test(long_fan_outs),
        cmocka_unit_test(credit_of_what_has_left),
        cmocka_unit_test(nobody_waits_for_a_session_that_never_was_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

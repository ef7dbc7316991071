/* Unit test of the list against an array: insert anywhere, remove anything, walk while removing. */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define ITEMS 20

struct item {
    unsigned number;
    struct list link;
};

static void check_is(const struct list *head, struct item *const *order, size_t count)
{
    const struct list *node = head;
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(node->next->prev, node);
        node = node->next;
        assert_ptr_equal(node, &order[i]->link);
    }
    assert_ptr_equal(node->next, head);
    assert_ptr_equal(head->prev, node);
    assert_int_equal(list_empty(head), count == 0);
}

static void random_changes_agree_with_an_array(void **state)
{
    (void)state;
    struct list head;
    struct item items[ITEMS], *order[ITEMS];
    size_t count = 0;
    srand(5);
    list_init(&head);
    for (unsigned i = 0; i < ITEMS; i++) {
        items[i].number = i;
        list_init(&items[i].link);
    }
    for (int step = 0; step < 5000; step++) {
        struct item *item = &items[rand() % ITEMS];
        size_t at = 0;
        while (at < count && order[at] != item)
            at++;
        if (at < count) {
            list_remove(&item->link);
            assert_true(list_empty(&item->link));
            memmove(&order[at], &order[at + 1], (--count - at) * sizeof *order);
        } else {
            at = (size_t)rand() % (count + 1);
            list_insert(at == count ? &head : &order[at]->link, &item->link);
            memmove(&order[at + 1], &order[at], (count++ - at) * sizeof *order);
            order[at] = item;
        }
        check_is(&head, order, count);
        assert_ptr_equal(LIST_FIRST(&head, struct item, link), count ? order[0] : NULL);
    }
}

static void a_walk_may_remove_what_it_stands_on(void **state)
{
    (void)state;
    struct list head;
    struct item items[ITEMS], *odd[ITEMS / 2];
    unsigned seen = 0;
    list_init(&head);
    for (unsigned i = 0; i < ITEMS; i++) {
        items[i].number = i;
        list_insert(&head, &items[i].link);
        odd[i / 2] = &items[i];
    }
    LIST_EACH(&head, node, after)
    {
        assert_int_equal(CONTAINER_OF(node, struct item, link)->number, seen++);
        if (seen % 2)
            list_remove(node);
    }
    assert_int_equal(seen, ITEMS);
    check_is(&head, odd, ITEMS / 2);
    list_remove(&items[0].link); /* removing what is in no list changes nothing */
    check_is(&head, odd, ITEMS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_agree_with_an_array),
        cmocka_unit_test(a_walk_may_remove_what_it_stands_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

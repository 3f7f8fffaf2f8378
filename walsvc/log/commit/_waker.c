/* Waker: gives the Acks of many groups their results, and wakes the tasks that wait for them. Twin: PythonWaker in ack.py.

   The head of _ack.c says in which two steps a group is answered. Here are the queue between the two steps, and the loop that
   empties it; _wakeup.c has how one task is woken. */

#include "_ack.h"
#include <string.h>

#define SLICE 2048     /* wake-ups in one callback of the loop, about two milliseconds */

typedef struct {
    Ack *ack;            /* owned */
    PyObject *callback;  /* owned */
    PyObject *context;   /* owned */
} Wake;

typedef struct {
    PyObject_HEAD
    PyObject *loop;
    Wake *queue;
    Py_ssize_t head, tail, room;
    uint32_t round;      /* of wake_later: what the loop has of an earlier one does nothing */
    char waking, scheduled;
} Waker;

static PyObject *s_wake_on, *s_done, *s_set_result;

static PyObject *waker_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", NULL};
    PyObject *loop;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Waker", names, &loop))
        return NULL;
    Waker *self = (Waker *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->loop = Py_NewRef(loop);
    return (PyObject *)self;
}

static void drop(Wake *wake)
{
    Py_DECREF(wake->ack);
    Py_DECREF(wake->callback);
    Py_DECREF(wake->context);
}

static int waker_traverse(Waker *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    for (Py_ssize_t i = self->head; i < self->tail; i++) {
        Py_VISIT(self->queue[i].ack);
        Py_VISIT(self->queue[i].callback);
        Py_VISIT(self->queue[i].context);
    }
    return 0;
}

static int waker_clear(Waker *self)
{
    Py_CLEAR(self->loop);
    while (self->head < self->tail) {
        Wake wake = self->queue[self->head++];
        drop(&wake);
    }
    return 0;
}

static void waker_dealloc(Waker *self)
{
    PyObject_GC_UnTrack(self);
    waker_clear(self);
    PyMem_Free(self->queue);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* Make room for `count` more entries. */
static int reserve(Waker *self, Py_ssize_t count)
{
    if (self->tail + count <= self->room)
        return 0;
    if (self->head > 0) {
        memmove(self->queue, self->queue + self->head, (size_t)(self->tail - self->head) * sizeof(Wake));
        self->tail -= self->head;
        self->head = 0;
    }
    if (self->tail + count <= self->room)
        return 0;
    Py_ssize_t room = 2 * (self->tail + count);
    Wake *queue = PyMem_Realloc(self->queue, (size_t)room * sizeof(Wake));
    if (queue == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->queue = queue;
    self->room = room;
    return 0;
}

static int take_by_queue(void *taker, Ack *ack, PyObject *callback, PyObject *context)
{
    Waker *self = taker;
    if (reserve(self, 1) < 0) {  /* room was made before; this is for a callback that came since */
        PyErr_Clear();
        return take_by_loop(NULL, ack, callback, context);
    }
    self->queue[self->tail++] = (Wake){(Ack *)Py_NewRef((PyObject *)ack), callback, context};
    return 0;
}

/* How many callbacks wait for these Acks. */
static Py_ssize_t callbacks_in(PyObject *acks)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(acks); i++)
        if (Py_TYPE(PyList_GET_ITEM(acks, i)) == &AckType)
            count += callbacks_of((Ack *)PyList_GET_ITEM(acks, i));
    return count;
}

/* Give an asyncio.Future its AppendResult, unless it is done. */
static int settle_future(PyObject *future, const uint64_t numbers[5])
{
    PyObject *done = PyObject_CallMethodNoArgs(future, s_done), *answer = NULL;
    int truth = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (truth != 0)
        return truth < 0 ? -1 : 0;
    PyObject *value = new_result(numbers, 1);
    if (value != NULL)
        answer = PyObject_CallMethodOneArg(future, s_set_result, value);
    Py_XDECREF(value);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* settle(acks, first_lsn, segment_id, offset, lengths, sync_us): every Ack in the list has its AppendResult. None in the list
   is a record that nobody waits for; an asyncio.Future is served as well. Nobody is woken yet. Without memory for the queue
   no Ack changes. */
static PyObject *waker_settle(Waker *self, PyObject *args)
{
    PyObject *acks;
    unsigned long long lsn, segment, offset, sync_us;
    Py_buffer lengths;
    if (!PyArg_ParseTuple(args, "O!KKKy*K", &PyList_Type, &acks, &lsn, &segment, &offset, &lengths, &sync_us))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(acks);
    int outcome = 0;
    if (lengths.len != count * (Py_ssize_t)sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "settle() needs one length for each record");
        outcome = -1;
    } else if (reserve(self, callbacks_in(acks)) < 0) {
        outcome = -1;
    }
    const uint32_t *length = lengths.buf;
    uint64_t numbers[5] = {lsn, segment, offset, 0, sync_us};
    for (Py_ssize_t i = 0; outcome == 0 && i < count && i < PyList_GET_SIZE(acks); i++) {
        PyObject *each = PyList_GET_ITEM(acks, i);
        Ack *ack = (Ack *)each;
        numbers[3] = length[i];
        if (Py_TYPE(each) != &AckType) {
            outcome = each == Py_None ? 0 : settle_future(each, numbers);
        } else if (ack->state == PENDING) {
            memcpy(ack->numbers, numbers, sizeof numbers);
            ack->state = DONE;
            PyObject_GC_UnTrack(each);  /* without callbacks it is in no cycle */
            outcome = detach(ack, take_by_queue, self);
        }
        numbers[0] += 1;
        numbers[2] += length[i];
    }
    PyBuffer_Release(&lengths);
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* give(ack, value): the Ack has `value`, unless it is done. Nobody is woken yet. */
static PyObject *waker_give(Waker *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || Py_TYPE(args[0]) != &AckType) {
        PyErr_SetString(PyExc_TypeError, "give(ack, value)");
        return NULL;
    }
    Ack *ack = (Ack *)args[0];
    if (ack->state == PENDING) {
        if (reserve(self, callbacks_of(ack)) < 0)
            return NULL;
        ack->result = Py_NewRef(args[1]);
        ack->state = DONE;
        if (detach(ack, take_by_queue, self) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* Have the loop go on with the queue, behind everything that it has to do already. An error that is set stays the one. Handed over
   two times (walsvc.tasks.TWICE): the exception of a signal handler may come before the loop has called what it took. */
static int wake_later(Waker *self)
{
    if (self->scheduled)
        return 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *again = PyObject_GetAttr((PyObject *)self, s_wake_on), *round = PyLong_FromUnsignedLong(++self->round);
    int outcome = again == NULL || round == NULL ? -1 : call_soon(self->loop, again, round, NULL);
    self->scheduled = outcome == 0;
    if (outcome == 0)
        outcome = call_soon(self->loop, again, round, NULL);
    Py_XDECREF(again);
    Py_XDECREF(round);
    if (type != NULL)
        PyErr_Restore(type, value, trace);
    return outcome;
}

/* Take entries off the queue in order, at most SLICE of them. An entry stays at the head until it was called or scheduled, so
   without memory nobody is forgotten. -1: an error is set. */
static int wake_slice(Waker *self)
{
    int way = way_to_wake(self->loop), outcome = way < 0 ? -1 : 0;
    for (int woken = 0; outcome == 0 && self->head < self->tail && woken < SLICE; woken++) {
        Wake wake = self->queue[self->head];
        int known = way != EACH_BY_LOOP && is_wakeup(wake.callback);
        if (known && way == LATER)
            break;
        int by_loop = known ? wake_directly(self->loop, wake.ack, wake.callback, wake.context) : 1;
        if (by_loop > 0) {
            if (call_soon(self->loop, wake.callback, (PyObject *)wake.ack, wake.context) < 0)
                return -1;
            if (known)
                woken = SLICE;  /* this task waits in the loop, so whoever is behind it waits behind it there */
        } else {
            outcome = by_loop;
        }
        self->head++;
        drop(&wake);
    }
    return outcome;
}

/* wake(): call or schedule every callback of what was settled and given. Entered once at a time, since a woken task may
   get here again: the outer call, or the loop, then goes on with the queue. */
static PyObject *waker_wake(Waker *self, PyObject *Py_UNUSED(ignored))
{
    if (self->waking || self->scheduled || self->head == self->tail)
        Py_RETURN_NONE;
    self->waking = 1;
    int outcome = wake_slice(self);
    self->waking = 0;
    if (self->head == self->tail)
        self->head = self->tail = 0;
    else if (wake_later(self) < 0)
        outcome = -1;
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *waker_wake_on(Waker *self, PyObject *round)
{
    unsigned long number = PyLong_AsUnsignedLong(round);
    if (number == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (!self->scheduled || number != self->round)
        Py_RETURN_NONE;
    self->scheduled = 0;
    return waker_wake(self, NULL);
}

static PyObject *waker_ack(Waker *self, PyObject *Py_UNUSED(ignored)) { return (PyObject *)ack_new(self->loop); }

/* accepted(lsn, segment_id, offset, length): returns a new Ack with the answer of a record that is not durable. */
static PyObject *waker_accepted(Waker *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "accepted(lsn, segment_id, offset, length)");
        return NULL;
    }
    Ack *ack = ack_new(self->loop);
    for (int i = 0; ack != NULL && i < 4; i++) {
        ack->numbers[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (ack->numbers[i] == (uint64_t)-1 && PyErr_Occurred())
            Py_CLEAR(ack);
    }
    if (ack != NULL) {
        ack->numbers[4] = 0;
        ack->durable = 0;
        ack->state = DONE;
    }
    return (PyObject *)ack;
}

static PyMethodDef waker_methods[] = {
    {"ack", (PyCFunction)waker_ack, METH_NOARGS, "Return a new Ack that waits for its answer."},
    {"accepted", (PyCFunction)waker_accepted, METH_FASTCALL,
     "accepted(lsn, segment_id, offset, length): return a new Ack with the answer of a record that is not durable."},
    {"settle", (PyCFunction)waker_settle, METH_VARARGS,
     "settle(acks, first_lsn, segment_id, offset, lengths, sync_us): give each Ack its AppendResult; None is passed over."},
    {"give", (PyCFunction)waker_give, METH_FASTCALL, "give(ack, value): give one Ack this result."},
    {"wake", (PyCFunction)waker_wake, METH_NOARGS, "Wake whoever waits for what was settled and given, in that order."},
    {"_wake_on", (PyCFunction)waker_wake_on, METH_O, NULL},
    {NULL},
};

PyTypeObject WakerType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "walsvc.log.commit._ack.Waker",
    .tp_doc = PyDoc_STR("Waker(loop): makes the Acks of one loop, answers them and wakes the tasks that wait for them."),
    .tp_basicsize = sizeof(Waker),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = waker_make,
    .tp_dealloc = (destructor)waker_dealloc,
    .tp_traverse = (traverseproc)waker_traverse,
    .tp_clear = (inquiry)waker_clear,
    .tp_methods = waker_methods,
};

int waker_import(void)
{
    s_wake_on = PyUnicode_InternFromString("_wake_on");
    s_done = PyUnicode_InternFromString("done");
    s_set_result = PyUnicode_InternFromString("set_result");
    return PyErr_Occurred() ? -1 : 0;
}

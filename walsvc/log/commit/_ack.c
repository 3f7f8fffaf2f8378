/* Ack, the answer to an append: an awaitable that costs less than asyncio.Future. Twin and specification: ack.py.

   An Ack speaks two protocols. Tasks, gather, wait_for, shield and timeout take it as a future; create_task and TaskGroup
   take it as a coroutine. A Waker gives many Acks their results and wakes the tasks that wait for them.

   A group of appends is answered in two steps. First the Waker marks every Ack of the group as done and moves its callbacks
   into one queue. Then it empties the queue in order. A task's own wake-up is called directly, in the task's context; every
   other callback goes through loop.call_soon. State is complete before the first wake-up, since a woken task may append,
   cancel or await anything at once.

   A direct wake-up is a shortcut with conditions. It is taken only for success, only on the running loop while no task runs,
   and never in debug mode; otherwise call_soon is the way, as in asyncio. A wake-up is known by the C function behind it,
   which ack.py learns from a task of its own (`learn`). Nothing overtakes: what waits in the queue comes first.

   All of this needs the GIL, so free-threaded builds use the twin. Reference contracts stand above each function. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#define FREE_MAX 4096  /* Acks kept for reuse: one large group */
#define SLICE 2048     /* wake-ups in one callback of the loop, about two milliseconds */

enum state { PENDING, DONE, FAILED, CANCELLED };

typedef struct {
    PyObject_HEAD
    PyObject *loop;
    PyObject *callback;  /* the first one; NULL: none */
    PyObject *context;   /* its context */
    PyObject *more;      /* list of (callback, context) added after it; NULL: none */
    PyObject *result;    /* NULL while the numbers below stand for it */
    PyObject *exception;
    PyObject *traceback; /* the exception's, as it was given */
    PyObject *message;   /* of cancel */
    PyObject *weakrefs;
    uint64_t numbers[5]; /* of an AppendResult that nobody has asked for: lsn, segment, offset, length, sync_us */
    unsigned char state, blocking, unseen, durable; /* unseen: nobody has fetched the exception; durable: of the AppendResult */
} Ack;

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
    char waking, scheduled;
} Waker;

static PyTypeObject AckType, WakerType;
static Ack *free_acks[FREE_MAX];
static int free_count;
static PyObject *append_result;                 /* the type AppendResult */
static PyObject *current_task, *running_loop;   /* of asyncio */
static PyObject *invalid_state, *cancelled_error;
static PyMethodDef *wakeup;                     /* of a task; NULL: not learned, every callback goes through call_soon */
static PyTypeObject *task_type;
static PyObject *s_call_soon, *s_get_debug, *s_handler, *s_wake_on, *s_done, *s_set_result, *context_keyword;

/* ---- Ack: making and freeing */

/* Returns a new, untracked Ack; its first callback makes it known to the collector. Before that it is in no cycle. */
static Ack *ack_new(PyObject *loop)
{
    Ack *self;
    if (free_count > 0) {
        self = free_acks[--free_count];
        _Py_NewReference((PyObject *)self);
    } else {
        self = PyObject_GC_New(Ack, &AckType);
        if (self == NULL)
            return NULL;
    }
    self->loop = Py_NewRef(loop);
    self->callback = self->context = self->more = self->result = NULL;
    self->exception = self->traceback = self->message = self->weakrefs = NULL;
    self->state = PENDING;
    self->blocking = self->unseen = 0;
    self->durable = 1;
    return self;
}

static PyObject *ack_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", NULL};
    PyObject *loop;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Ack", names, &loop))
        return NULL;
    return (PyObject *)ack_new(loop);
}

static int ack_traverse(Ack *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->more);
    Py_VISIT(self->result);
    Py_VISIT(self->exception);
    Py_VISIT(self->traceback);
    Py_VISIT(self->message);
    return 0;
}

static int ack_clear(Ack *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->more);
    Py_CLEAR(self->result);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->traceback);
    Py_CLEAR(self->message);
    return 0;
}

/* An exception that nobody fetched is told to the loop's handler, as asyncio's futures do. */
static void ack_finalize(PyObject *op)
{
    Ack *self = (Ack *)op;
    if (!self->unseen || self->loop == NULL)
        return;
    self->unseen = 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *told = Py_BuildValue("{s:s,s:O,s:O}", "message", "Ack exception was never retrieved", "exception",
                                   self->exception, "future", op);
    PyObject *answer = told == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, s_handler, told);
    if (answer == NULL)
        PyErr_WriteUnraisable(op);
    Py_XDECREF(answer);
    Py_XDECREF(told);
    PyErr_Restore(type, value, trace);
}

static void ack_dealloc(PyObject *op)
{
    Ack *self = (Ack *)op;
    char reusable = self->state != FAILED;  /* a finalized object is never finalized again, so it is not reused */
    if (self->unseen && PyObject_CallFinalizerFromDealloc(op) < 0)
        return;
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(op);
    ack_clear(self);
    if (reusable && free_count < FREE_MAX)
        free_acks[free_count++] = self;
    else
        PyObject_GC_Del(op);
}

/* ---- Ack: outcome */

/* Returns a new int, or the one of the call before: segment and sync_us are the same for a whole group. */
static PyObject *shared_number(int which, uint64_t number)
{
    static struct { uint64_t number; PyObject *object; } last[2];
    if (last[which].object == NULL || last[which].number != number) {
        PyObject *object = PyLong_FromUnsignedLongLong(number);
        if (object == NULL)
            return NULL;
        Py_XSETREF(last[which].object, object);
        last[which].number = number;
    }
    return Py_NewRef(last[which].object);
}

/* Returns a new AppendResult. It holds numbers only, so the collector need not know it. */
static PyObject *new_result(const uint64_t numbers[5], int durable)
{
    PyTypeObject *type = (PyTypeObject *)append_result;
    PyObject *value = type->tp_alloc(type, 6);
    for (int i = 0; value != NULL && i < 6; i++) {
        PyObject *cell = i == 4   ? PyBool_FromLong(durable)
                         : i == 1 ? shared_number(0, numbers[1])
                         : i == 5 ? shared_number(1, numbers[4])
                                  : PyLong_FromUnsignedLongLong(numbers[i]);
        PyTuple_SET_ITEM(value, i, cell);
        if (cell == NULL)
            Py_CLEAR(value);
    }
    if (value != NULL)
        PyObject_GC_UnTrack(value);
    return value;
}

/* Returns a new reference. An AppendResult is made at the first call and kept: CPython's own wake-up asks for the result
   and drops it. */
static PyObject *ack_value(Ack *self)
{
    if (self->result == NULL)
        self->result = new_result(self->numbers, self->durable);
    return Py_XNewRef(self->result);
}

/* Returns a new CancelledError, or NULL with an error set. */
static PyObject *ack_make_cancelled_error(Ack *self, PyObject *Py_UNUSED(ignored))
{
    if (self->message == NULL || self->message == Py_None)
        return PyObject_CallNoArgs(cancelled_error);
    return PyObject_CallOneArg(cancelled_error, self->message);
}

static void raise_instance(PyObject *exception)
{
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
}

static PyObject *ack_result(Ack *self, PyObject *Py_UNUSED(ignored))
{
    switch (self->state) {
    case DONE:
        return ack_value(self);
    case FAILED:
        self->unseen = 0;
        if (PyException_SetTraceback(self->exception, self->traceback ? self->traceback : Py_None) < 0)
            return NULL;
        raise_instance(Py_NewRef(self->exception));
        return NULL;
    case CANCELLED:
        raise_instance(ack_make_cancelled_error(self, NULL));
        return NULL;
    default:
        PyErr_SetString(invalid_state, "Result is not set.");
        return NULL;
    }
}

static PyObject *ack_exception(Ack *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == CANCELLED) {
        raise_instance(ack_make_cancelled_error(self, NULL));
        return NULL;
    }
    if (self->state == PENDING) {
        PyErr_SetString(invalid_state, "Exception is not set.");
        return NULL;
    }
    self->unseen = 0;
    return Py_NewRef(self->state == FAILED ? self->exception : Py_None);
}

static PyObject *ack_done(Ack *self, PyObject *Py_UNUSED(ignored)) { return PyBool_FromLong(self->state != PENDING); }

static PyObject *ack_cancelled(Ack *self, PyObject *Py_UNUSED(ignored)) { return PyBool_FromLong(self->state == CANCELLED); }

static PyObject *ack_get_loop(Ack *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self->loop); }

/* ---- Ack: callbacks */

/* Have the loop call callback(argument) in `context`, or callback() if both are NULL. -1: an error is set. */
static int call_soon(PyObject *loop, PyObject *callback, PyObject *argument, PyObject *context)
{
    PyObject *stack[4] = {loop, callback, argument, context};
    PyObject *handle = argument == NULL ? PyObject_VectorcallMethod(s_call_soon, stack, 2, NULL)
                                        : PyObject_VectorcallMethod(s_call_soon, stack, 3, context_keyword);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Take the callbacks off a finished Ack and hand each to `take`, with references to both. */
static int detach(Ack *self, int (*take)(void *, Ack *, PyObject *, PyObject *), void *taker)
{
    PyObject *callback = self->callback, *context = self->context, *more = self->more;
    self->callback = self->context = self->more = NULL;
    int outcome = 0;
    if (callback != NULL)
        outcome = take(taker, self, callback, context);
    for (Py_ssize_t i = 0; more != NULL && i < PyList_GET_SIZE(more) && outcome == 0; i++) {
        PyObject *pair = PyList_GET_ITEM(more, i);
        outcome = take(taker, self, Py_NewRef(PyTuple_GET_ITEM(pair, 0)), Py_NewRef(PyTuple_GET_ITEM(pair, 1)));
    }
    Py_XDECREF(more);
    return outcome;
}

static int take_by_loop(void *Py_UNUSED(taker), Ack *self, PyObject *callback, PyObject *context)
{
    int outcome = call_soon(self->loop, callback, (PyObject *)self, context);
    Py_DECREF(callback);
    Py_DECREF(context);
    return outcome;
}

static PyObject *settled(Ack *self, enum state state)
{
    self->state = (unsigned char)state;
    if (detach(self, take_by_loop, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *ack_add_done_callback(Ack *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *context = NULL;
    if (count != 1 || (names != NULL && (PyTuple_GET_SIZE(names) != 1 ||
                                         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "context") != 0))) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(callback, *, context=None)");
        return NULL;
    }
    if (names != NULL && args[1] != Py_None)
        context = Py_NewRef(args[1]);
    else if ((context = PyContext_CopyCurrent()) == NULL)
        return NULL;
    int outcome = 0;
    if (self->state != PENDING) {
        outcome = call_soon(self->loop, args[0], (PyObject *)self, context);
        Py_DECREF(context);
    } else if (self->callback == NULL && self->more == NULL) {
        self->callback = Py_NewRef(args[0]);
        self->context = context;
        if (!PyObject_GC_IsTracked((PyObject *)self))
            PyObject_GC_Track((PyObject *)self);
    } else {
        PyObject *pair = PyTuple_Pack(2, args[0], context);
        Py_DECREF(context);
        if (pair == NULL || (self->more == NULL && (self->more = PyList_New(0)) == NULL))
            outcome = -1;
        else
            outcome = PyList_Append(self->more, pair);
        Py_XDECREF(pair);
    }
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *ack_remove_done_callback(Ack *self, PyObject *wanted)
{
    Py_ssize_t removed = 0;
    Py_INCREF(self);
    if (self->callback != NULL) {
        PyObject *callback = Py_NewRef(self->callback);
        int same = PyObject_RichCompareBool(callback, wanted, Py_EQ);
        if (same > 0 && self->callback == callback) {
            Py_CLEAR(self->callback);
            Py_CLEAR(self->context);
            removed = 1;
        }
        Py_DECREF(callback);
        if (same < 0)
            goto failed;
    }
    if (self->more != NULL) {
        PyObject *before = self->more, *kept = PyList_New(0);
        self->more = NULL;  /* a comparison may run any code */
        int wrong = kept == NULL;
        for (Py_ssize_t i = 0; !wrong && i < PyList_GET_SIZE(before); i++) {
            PyObject *pair = PyList_GET_ITEM(before, i);
            int same = PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), wanted, Py_EQ);
            removed += same > 0;
            wrong = same < 0 || (same == 0 && PyList_Append(kept, pair) < 0);
        }
        if (!wrong && self->more != NULL)
            wrong = PyList_SetSlice(kept, PyList_GET_SIZE(kept), PyList_GET_SIZE(kept), self->more) < 0;
        Py_XSETREF(self->more, wrong ? Py_NewRef(before) : Py_NewRef(kept));
        Py_DECREF(before);
        Py_XDECREF(kept);
        if (wrong)
            goto failed;
    }
    Py_DECREF(self);
    return PyLong_FromSsize_t(removed);
failed:
    Py_DECREF(self);
    return NULL;
}

/* ---- Ack: settling it alone; callbacks always go through the loop */

static PyObject *ack_cancel(Ack *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message))
        return NULL;
    self->unseen = 0;
    if (self->state != PENDING)
        Py_RETURN_FALSE;
    Py_XSETREF(self->message, Py_NewRef(message));
    PyObject *outcome = settled(self, CANCELLED);
    if (outcome == NULL)
        return NULL;
    Py_DECREF(outcome);
    Py_RETURN_TRUE;
}

static int check_pending(Ack *self)
{
    if (self->state == PENDING)
        return 0;
    PyErr_Format(invalid_state, "the append has its answer already: %R", self);
    return -1;
}

static PyObject *ack_set_result(Ack *self, PyObject *value)
{
    if (check_pending(self) < 0)
        return NULL;
    self->result = Py_NewRef(value);
    return settled(self, DONE);
}

static PyObject *ack_set_exception(Ack *self, PyObject *exception)
{
    if (check_pending(self) < 0)
        return NULL;
    if (PyExceptionClass_Check(exception))
        exception = PyObject_CallNoArgs(exception);
    else
        Py_INCREF(exception);
    if (exception == NULL)
        return NULL;
    if (!PyExceptionInstance_Check(exception) || PyErr_GivenExceptionMatches(exception, PyExc_StopIteration)) {
        PyErr_Format(PyExc_TypeError, "%R cannot be raised into an Ack", exception);
        Py_DECREF(exception);
        return NULL;
    }
    self->exception = exception;
    self->traceback = PyException_GetTraceback(exception);
    self->unseen = 1;
    return settled(self, FAILED);
}

/* ---- Ack: awaiting it, as a future's iterator and as a coroutine */

/* Sets StopIteration(value). The exception object is made first: PyErr_SetObject would take a tuple apart. */
static void stop_with(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    raise_instance(stop);
}

static PyObject *ack_next(Ack *self)
{
    if (self->state == PENDING) {
        self->blocking = 1;
        return Py_NewRef((PyObject *)self);
    }
    PyObject *value = ack_result(self, NULL);
    if (value != NULL)
        stop_with(value);
    return NULL;
}

static PyObject *ack_send(Ack *self, PyObject *Py_UNUSED(value)) { return ack_next(self); }

static PySendResult ack_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    Ack *self = (Ack *)op;
    if (self->state == PENDING) {
        self->blocking = 1;
        *result = Py_NewRef(op);
        return PYGEN_NEXT;
    }
    *result = ack_result(self, NULL);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* throw(exception) and the older throw(type, value, traceback): raises it, and changes nothing. */
static PyObject *ack_throw(Ack *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "throw(exception)");
        return NULL;
    }
    PyObject *exception = count > 1 && PyExceptionInstance_Check(args[1]) ? args[1] : args[0];
    if (PyExceptionInstance_Check(exception)) {
        raise_instance(Py_NewRef(exception));
    } else if (PyExceptionClass_Check(exception)) {
        PyObject *made = count > 1 && args[1] != Py_None ? PyObject_CallOneArg(exception, args[1]) : PyObject_CallNoArgs(exception);
        raise_instance(made);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

static PyObject *ack_close(Ack *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) { Py_RETURN_NONE; }

/* ---- Ack: the type */

static PyObject *get_blocking(Ack *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(self->blocking); }

static int set_blocking(Ack *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
    if (truth < 0)
        return -1;
    self->blocking = (unsigned char)truth;
    return 0;
}

static PyObject *get_message(Ack *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->message == NULL ? Py_None : self->message);
}

static int set_message(Ack *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->message, Py_XNewRef(value));
    return 0;
}

static PyObject *get_state(Ack *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->state == PENDING ? "PENDING" : self->state == CANCELLED ? "CANCELLED" : "FINISHED");
}

static PyObject *get_unseen(Ack *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(self->unseen); }

static int set_unseen(Ack *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    self->unseen = self->unseen && truth;
    return 0;
}

static PyObject *ack_repr(PyObject *op)
{
    Ack *self = (Ack *)op;
    if (self->state == FAILED)
        return PyUnicode_FromFormat("<Ack finished exception=%R>", self->exception);
    if (self->state != DONE)
        return PyUnicode_FromString(self->state == PENDING ? "<Ack pending>" : "<Ack cancelled>");
    PyObject *value = ack_value(self);
    PyObject *text = value == NULL ? NULL : PyUnicode_FromFormat("<Ack finished result=%R>", value);
    Py_XDECREF(value);
    return text;
}

static PyMethodDef ack_methods[] = {
    {"result", (PyCFunction)ack_result, METH_NOARGS, "Return the result, or raise what the append failed with."},
    {"exception", (PyCFunction)ack_exception, METH_NOARGS, "Return what the append failed with, or None."},
    {"done", (PyCFunction)ack_done, METH_NOARGS, "Return whether the append has its answer, or the wait was cancelled."},
    {"cancelled", (PyCFunction)ack_cancelled, METH_NOARGS, "Return whether the wait was cancelled."},
    {"cancel", (PyCFunction)ack_cancel, METH_VARARGS | METH_KEYWORDS, "End the wait; an accepted record stays."},
    {"get_loop", (PyCFunction)ack_get_loop, METH_NOARGS, "Return the loop that the log belongs to."},
    {"add_done_callback", (PyCFunction)ack_add_done_callback, METH_FASTCALL | METH_KEYWORDS,
     "Call callback(ack) through the loop when the append has its answer."},
    {"remove_done_callback", (PyCFunction)ack_remove_done_callback, METH_O, "Return how many equal callbacks were removed."},
    {"set_result", (PyCFunction)ack_set_result, METH_O, "Answer; for the log alone."},
    {"set_exception", (PyCFunction)ack_set_exception, METH_O, "Fail; for the log alone."},
    {"_make_cancelled_error", (PyCFunction)ack_make_cancelled_error, METH_NOARGS, NULL},
    {"send", (PyCFunction)ack_send, METH_O, "Coroutine protocol: return self while pending, then stop with the result."},
    {"throw", (PyCFunction)ack_throw, METH_FASTCALL, "Coroutine protocol: raise; the Ack stays as it is."},
    {"close", (PyCFunction)ack_close, METH_NOARGS, "Coroutine protocol: nothing to close."},
    {"__class_getitem__", (PyCFunction)Py_GenericAlias, METH_O | METH_CLASS, "Ack[T]: an Ack of a T."},
    {NULL},
};

static PyGetSetDef ack_attributes[] = {
    {"_asyncio_future_blocking", (getter)get_blocking, (setter)set_blocking, NULL, NULL},
    {"_cancel_message", (getter)get_message, (setter)set_message, NULL, NULL},
    {"_loop", (getter)ack_get_loop, NULL, NULL, NULL},
    {"_state", (getter)get_state, NULL, NULL, NULL},
    {"_log_traceback", (getter)get_unseen, (setter)set_unseen, NULL, NULL},
    {NULL},
};

static PyAsyncMethods ack_async = {.am_await = PyObject_SelfIter, .am_send = ack_am_send};

static PyTypeObject AckType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "walsvc.Ack",
    .tp_doc = PyDoc_STR("The answer to an append: await it, or use it as asyncio uses futures and coroutines."),
    .tp_basicsize = sizeof(Ack),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = ack_make,
    .tp_dealloc = ack_dealloc,
    .tp_finalize = ack_finalize,
    .tp_traverse = (traverseproc)ack_traverse,
    .tp_clear = (inquiry)ack_clear,
    .tp_weaklistoffset = offsetof(Ack, weakrefs),
    .tp_as_async = &ack_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)ack_next,
    .tp_repr = ack_repr,
    .tp_methods = ack_methods,
    .tp_getset = ack_attributes,
};

/* ---- Waker */

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
static Py_ssize_t callbacks_of(PyObject *acks)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(acks); i++) {
        Ack *ack = (Ack *)PyList_GET_ITEM(acks, i);
        if (Py_TYPE(ack) == &AckType)
            count += (ack->callback != NULL) + (ack->more == NULL ? 0 : PyList_GET_SIZE(ack->more));
    }
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
    } else if (reserve(self, callbacks_of(acks)) < 0) {
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
        if (reserve(self, 1 + (ack->more == NULL ? 0 : PyList_GET_SIZE(ack->more))) < 0)
            return NULL;
        ack->result = Py_NewRef(args[1]);
        ack->state = DONE;
        if (detach(ack, take_by_queue, self) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static int is_wakeup(PyObject *callback)
{
    if (wakeup == NULL || !PyCFunction_CheckExact(callback) || ((PyCFunctionObject *)callback)->m_ml != wakeup)
        return 0;
    PyObject *task = PyCFunction_GET_SELF(callback);
    return task != NULL && Py_TYPE(task) == task_type;
}

/* How wake-ups may be given at this moment: at once; by one callback of the loop that gives them all, while a task runs;
   or each through the loop, on another loop and in debug mode. -1: an error is set. */
enum way { AT_ONCE, LATER, EACH_BY_LOOP };

static int way_to_wake(Waker *self)
{
    PyObject *running = PyObject_CallNoArgs(running_loop);
    if (running == NULL)
        return -1;
    Py_DECREF(running);
    if (running != self->loop || wakeup == NULL)
        return EACH_BY_LOOP;
    PyObject *debug = PyObject_CallMethodNoArgs(self->loop, s_get_debug);
    int told = debug == NULL ? -1 : PyObject_IsTrue(debug);
    Py_XDECREF(debug);
    if (told != 0)
        return told < 0 ? -1 : EACH_BY_LOOP;
    PyObject *task = PyObject_CallOneArg(current_task, self->loop);
    if (task == NULL)
        return -1;
    Py_DECREF(task);
    return task == Py_None ? AT_ONCE : LATER;
}

/* Tell the loop's handler of the exception that is set. KeyboardInterrupt and SystemExit stay set: -1. */
static int told_of_error(Waker *self, PyObject *callback)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return -1;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *told = Py_BuildValue("{s:s,s:O}", "message", "walsvc: a task could not be woken", "exception", value);
    PyObject *answer = told == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, s_handler, told);
    if (answer == NULL)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(answer);
    Py_XDECREF(told);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return 0;
}

/* Call a task's wake-up in its context. 1: it must go through the loop, since its context is entered already. */
static int wake_directly(Waker *self, Wake *wake)
{
    if (PyContext_Enter(wake->context) < 0) {
        PyErr_Clear();
        return 1;
    }
    PyObject *answer = PyObject_CallOneArg(wake->callback, (PyObject *)wake->ack);
    int outcome = answer == NULL ? told_of_error(self, wake->callback) : 0;
    Py_XDECREF(answer);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyContext_Exit(wake->context) < 0)
        PyErr_WriteUnraisable(wake->context);
    PyErr_Restore(type, value, trace);
    return outcome;
}

/* Have the loop go on with the queue, behind everything that it has to do already. An error that is set stays the one. */
static int wake_later(Waker *self)
{
    if (self->scheduled)
        return 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *again = PyObject_GetAttr((PyObject *)self, s_wake_on);
    int outcome = again == NULL ? -1 : call_soon(self->loop, again, NULL, NULL);
    Py_XDECREF(again);
    self->scheduled = outcome == 0;
    if (type != NULL)
        PyErr_Restore(type, value, trace);
    return outcome;
}

/* Take entries off the queue in order, at most SLICE of them. An entry stays at the head until it was called or scheduled, so
   without memory nobody is forgotten. -1: an error is set. */
static int wake_slice(Waker *self)
{
    int way = way_to_wake(self), outcome = way < 0 ? -1 : 0;
    for (int woken = 0; outcome == 0 && self->head < self->tail && woken < SLICE; woken++) {
        Wake wake = self->queue[self->head];
        int known = way != EACH_BY_LOOP && is_wakeup(wake.callback);
        if (known && way == LATER)
            break;
        int by_loop = known ? wake_directly(self, &wake) : 1;
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

static PyObject *waker_wake_on(Waker *self, PyObject *Py_UNUSED(ignored))
{
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
    {"_wake_on", (PyCFunction)waker_wake_on, METH_NOARGS, NULL},
    {NULL},
};

static PyTypeObject WakerType = {
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

/* ---- the module */

/* learn(callback): what a task gives to add_done_callback is its wake-up. */
static PyObject *learn(PyObject *Py_UNUSED(module), PyObject *callback)
{
    if (!PyCFunction_CheckExact(callback) || PyCFunction_GET_SELF(callback) == NULL)
        Py_RETURN_FALSE;
    wakeup = ((PyCFunctionObject *)callback)->m_ml;
    task_type = Py_TYPE(PyCFunction_GET_SELF(callback));
    Py_INCREF(task_type);
    Py_RETURN_TRUE;
}

static PyMethodDef functions[] = {
    {"learn", learn, METH_O, "learn(callback): take this for a task's wake-up; returns whether it is one of C."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_ack", .m_doc = "Acks in C; see ack.py.", .m_size = -1, .m_methods = functions};

static int import_names(void)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio"), *model = PyImport_ImportModule("walsvc.model");
    if (asyncio != NULL && model != NULL) {
        append_result = PyObject_GetAttrString(model, "AppendResult");
        current_task = PyObject_GetAttrString(asyncio, "current_task");
        running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
        invalid_state = PyObject_GetAttrString(asyncio, "InvalidStateError");
        cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    }
    Py_XDECREF(asyncio);
    Py_XDECREF(model);
    s_call_soon = PyUnicode_InternFromString("call_soon");
    s_get_debug = PyUnicode_InternFromString("get_debug");
    s_handler = PyUnicode_InternFromString("call_exception_handler");
    s_wake_on = PyUnicode_InternFromString("_wake_on");
    s_done = PyUnicode_InternFromString("done");
    s_set_result = PyUnicode_InternFromString("set_result");
    context_keyword = Py_BuildValue("(s)", "context");
    return PyErr_Occurred() ? -1 : 0;
}

PyMODINIT_FUNC PyInit__ack(void)
{
    if (import_names() < 0 || PyType_Ready(&AckType) < 0 || PyType_Ready(&WakerType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddObjectRef(module, "Ack", (PyObject *)&AckType) < 0 ||
                           PyModule_AddObjectRef(module, "Waker", (PyObject *)&WakerType) < 0))
        Py_CLEAR(module);
    return module;
}

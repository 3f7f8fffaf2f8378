/* Callbacks of an Ack: as asyncio's futures have them, the first one without a list. They belong to a pending Ack; at its end they
   are detached, all at once, and handed to the loop or to a Waker. */

#include "_ack.h"

static PyObject *s_call_soon, *context_keyword;

/* Have the loop call callback(argument), in `context` unless that is NULL. -1: an error is set. */
int call_soon(PyObject *loop, PyObject *callback, PyObject *argument, PyObject *context)
{
    PyObject *stack[4] = {loop, callback, argument, context};
    PyObject *handle = PyObject_VectorcallMethod(s_call_soon, stack, 3, context == NULL ? NULL : context_keyword);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Take the callbacks off a finished Ack and hand each to `take`, with references to both. */
int detach(Ack *self, Taker take, void *taker)
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

/* Taker: have the loop call it. */
int take_by_loop(void *Py_UNUSED(taker), Ack *self, PyObject *callback, PyObject *context)
{
    int outcome = call_soon(self->loop, callback, (PyObject *)self, context);
    Py_DECREF(callback);
    Py_DECREF(context);
    return outcome;
}

/* How many wait. */
Py_ssize_t callbacks_of(Ack *self)
{
    return (self->callback != NULL) + (self->more == NULL ? 0 : PyList_GET_SIZE(self->more));
}

PyObject *ack_add_done_callback(Ack *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
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
    } else if (self->callback == NULL) {
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

/* Take the callback at this place off a pending Ack; those behind it move up. -1: an error is set. */
static int remove_at(Ack *self, Py_ssize_t place)
{
    if (place > 0)
        return PyList_SetSlice(self->more, place - 1, place, NULL);
    PyObject *callback = self->callback, *context = self->context;
    int outcome = 0;
    if (self->more != NULL && PyList_GET_SIZE(self->more) > 0) {
        PyObject *pair = PyList_GET_ITEM(self->more, 0);
        self->callback = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
        self->context = Py_NewRef(PyTuple_GET_ITEM(pair, 1));
        outcome = PyList_SetSlice(self->more, 0, 1, NULL);
    } else {
        self->callback = self->context = NULL;
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    return outcome;
}

/* Returns the callback at this place, borrowed; NULL: there are not so many. */
static PyObject *callback_at(Ack *self, Py_ssize_t place)
{
    if (place == 0)
        return self->callback;
    return place < callbacks_of(self) ? PyTuple_GET_ITEM(PyList_GET_ITEM(self->more, place - 1), 0) : NULL;
}

/* Remove all that are equal to `wanted`. A comparison may run any code: the Ack may be done after it, without callbacks. */
PyObject *ack_remove_done_callback(Ack *self, PyObject *wanted)
{
    Py_ssize_t removed = 0, place = 0;
    PyObject *callback;
    while ((callback = callback_at(self, place)) != NULL) {
        Py_INCREF(callback);
        int same = PyObject_RichCompareBool(callback, wanted, Py_EQ);
        int there = callback_at(self, place) == callback;
        Py_DECREF(callback);
        if (same < 0 || (same && there && remove_at(self, place) < 0))
            return NULL;
        removed += same && there;
        place += !(same && there);
    }
    return PyLong_FromSsize_t(removed);
}

int callbacks_import(void)
{
    s_call_soon = PyUnicode_InternFromString("call_soon");
    context_keyword = Py_BuildValue("(s)", "context");
    return PyErr_Occurred() ? -1 : 0;
}

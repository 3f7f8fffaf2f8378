/* An Ack that ends alone: cancelled, failed, or answered by something else than a group. Its callbacks go through the loop, never
   directly: asyncio's timeout and TaskGroup set their state only behind task.cancel(). */

#include "_ack.h"

static PyObject *settled(Ack *self, enum state state)
{
    self->state = (unsigned char)state;
    if (detach(self, take_by_loop, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *ack_cancel(Ack *self, PyObject *args, PyObject *kwargs)
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

PyObject *ack_set_result(Ack *self, PyObject *value)
{
    if (check_pending(self) < 0)
        return NULL;
    self->result = Py_NewRef(value);
    return settled(self, DONE);
}

PyObject *ack_set_exception(Ack *self, PyObject *exception)
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
    if (!PyObject_GC_IsTracked((PyObject *)self)) /* a frame of the traceback may hold the Ack: a cycle */
        PyObject_GC_Track((PyObject *)self);
    return settled(self, FAILED);
}
